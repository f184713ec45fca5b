"""Which candidates may be negatives of a pair: the rules, applied in order, each counting its toll.

All of it works on a block of pairs at once: arrays of shape (pairs, depth).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from syneg.mining.candidates import MISSING, Candidates, mix
from syneg.mining.report import MinerReport
from syneg.text import text_keys

_EMPTY = text_keys([""])[0]
_MOST_COMPARED = 2**24
"""Values compared with members at once, at most; beyond that they are looked up."""


@dataclass(frozen=True)
class Known:
    """What is known of the texts of a source, for the pairs of one block.

    Attributes:
        document_keys: `text.text_keys` of the corpus, shape (documents,).
        query_keys: The same of the pairs' queries, shape (pairs,).
        positive_rows: Judged positives of the pairs' queries, one after the other, shape (m,).
        positive_offsets: Where each query's positives begin in `positive_rows`, shape (queries,). Every
            query has one at least.
        queries: Which of these queries each pair has, shape (pairs,); None where each pair has its own.
    """

    document_keys: np.ndarray
    query_keys: np.ndarray
    positive_rows: np.ndarray
    positive_offsets: np.ndarray
    queries: np.ndarray | None = None

    def are_positives(self, values: np.ndarray, positives: np.ndarray) -> np.ndarray:
        """Returns which values are among the positives of the pair's query.

        Args:
            values: Shape (pairs, depth); the same for pairs of one query.
            positives: What stands for each of `positive_rows` there, shape (m,).
        """
        if self.queries is None:
            return _any_of(values, positives, self.positive_offsets)
        _, first = np.unique(self.queries, return_index=True)
        return _any_of(values[first], positives, self.positive_offsets)[self.queries]


@dataclass(frozen=True)
class Rules:
    """One miner's rules; None turns one off. See `arguments.MiningArguments` for what they mean."""

    keep: int
    rank_from: int = 1
    min_score: float | None = None
    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    sampled: bool = False
    sample_from: int = 0

    @property
    def needs_positive(self) -> bool:
        """Whether a margin needs the positive's score."""
        return self.absolute_margin is not None or self.relative_margin is not None


class Sieve:
    """The candidates of a block of pairs that are still in, and the count of those that are not.

    Args:
        candidates: Shape (pairs, depth).
        report: Where tolls are added.
    """

    def __init__(self, candidates: Candidates, report: MinerReport) -> None:
        self.rows = candidates.rows
        self.scores = candidates.scores
        self.alive = self.rows != MISSING
        self.report = report
        report.candidates += int(self.alive.sum())

    def drop(self, rule: str, bad: np.ndarray) -> None:
        """Drops those still in for which `bad` holds, and counts them under `rule`."""
        bad = bad & self.alive
        if (count := int(bad.sum())) or rule in self.report.dropped:
            self.report.dropped[rule] = self.report.dropped.get(rule, 0) + count
        self.alive = self.alive & ~bad

    def drop_known(self, known: Known, taken: np.ndarray) -> None:
        """Drops the query's positives, their like, the query itself, what has no text, repetitions, and
        what is taken.

        Args:
            known: What is known of the texts.
            taken: Keys of the texts that earlier miners gave each pair, 0 for none; shape (pairs, k).
        """
        keys = known.document_keys[np.maximum(self.rows, 0)]
        self.drop("positive", known.are_positives(self.rows, known.positive_rows))
        self.drop("equal to positive", known.are_positives(keys, known.document_keys[known.positive_rows]))
        self.drop("equal to query", keys == known.query_keys[:, None])
        self.drop("empty", keys == _EMPTY)
        self.drop("repeated", _repeated(keys, self.alive))
        earlier = np.zeros_like(self.alive)
        for column in taken.T:
            earlier |= keys == column[:, None]
        self.drop("earlier miner", earlier)

    def drop_ranks(self, rank_from: int) -> None:
        """Drops the candidates that rank above `rank_from`, positives counted in the ranking."""
        self.drop("rank", np.broadcast_to(np.arange(self.rows.shape[1]) + 1 < rank_from, self.rows.shape))

    def drop_scores(self, rules: Rules, scores: np.ndarray, positive_scores: np.ndarray | None) -> None:
        """Drops what is out of the score bounds or too near to the positive.

        The relative rule is NV-Retriever's TopK-PercPos (arXiv 2407.15831, section 4), in a form that
        also holds for negative scores: ``negative <= positive - |positive| * m``.

        Args:
            rules: The rules.
            scores: What margins compare with the positive's, shape (pairs, depth).
            positive_scores: The positive's, under the same scorer, shape (pairs,).
        """
        if rules.min_score is not None:
            self.drop("min_score", self.scores < rules.min_score)
        if rules.max_score is not None:
            self.drop("max_score", self.scores > rules.max_score)
        if positive_scores is None:
            return
        positive = positive_scores[:, None]
        if rules.absolute_margin is not None:
            self.drop("absolute_margin", scores > positive - rules.absolute_margin)
        if rules.relative_margin is not None:
            self.drop("relative_margin", scores > positive - np.abs(positive) * rules.relative_margin)

    def select(self, rules: Rules, seed: int, pair_keys: np.ndarray) -> None:
        """Keeps `rules.keep` a pair: the best, or a sample that depends on seed, pair and document."""
        if rules.sampled:
            place = np.cumsum(self.alive, axis=1)
            within = self.alive & (place <= rules.sample_from) if rules.sample_from else self.alive
            draws = mix(seed, pair_keys[:, None], self.rows)
            # The top bit sends those that are out of the running to the end.
            draws = (draws >> np.uint64(1)) | (~within).astype(np.uint64) << np.uint64(63)
            place = np.argsort(np.argsort(draws, axis=1, kind="stable"), axis=1, kind="stable") + 1
            chosen = within & (place <= rules.keep)
        else:
            chosen = self.alive & (np.cumsum(self.alive, axis=1) <= rules.keep)
        self.drop("selection", ~chosen)


def _any_of(values: np.ndarray, members: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns where a value is one of its line's members; `offsets` is where each line's begin."""
    line = np.repeat(np.arange(len(offsets)), np.diff(np.append(offsets, len(members))))
    if len(members) * values.shape[1] > _MOST_COMPARED:
        # Line and value in one number, the value by its place among all members.
        table, member = np.unique(members, return_inverse=True)
        place = np.minimum(np.searchsorted(table, values), len(table) - 1)
        own = np.arange(len(offsets))[:, None] * len(table)
        return (table[place] == values) & np.isin(own + place, line * len(table) + member)
    return np.logical_or.reduceat(values[line] == members[:, None], offsets, axis=0)


def _repeated(keys: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Returns where a key stands further left in its line already, among those alive."""
    # Those not alive sort after the living of the same key, so that only living ones count as first.
    by = np.lexsort((np.broadcast_to(np.arange(keys.shape[1]), keys.shape), ~alive, keys), axis=1)
    ordered = np.take_along_axis(keys, by, axis=1)
    repeated = np.zeros(keys.shape, dtype=bool)
    np.put_along_axis(repeated, by[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeated
