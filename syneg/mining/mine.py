"""Mining: for each pair the negatives that several miners retrieve and the rules let through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from syneg.errors import InputError
from syneg.mining.arguments import MiningArguments, own_miner
from syneg.mining.bm25 import BM25Miner, Terms
from syneg.mining.cache import document_keys
from syneg.mining.candidates import MISSING, Candidates, Miner, Processes
from syneg.mining.dense import DenseMiner
from syneg.mining.embeddings import choose_device
from syneg.mining.filters import Known, Rules, Sieve
from syneg.mining.random_miner import RandomMiner
from syneg.mining.report import MinerReport, MiningReport
from syneg.resources import is_class_spec
from syneg.rows import Negative, make_negative
from syneg.sources import Pairs
from syneg.text import text_keys

_PAIRS_AT_ONCE = 2048
_CANDIDATES_AT_ONCE = 2**22


@dataclass(frozen=True)
class MinedNegatives:
    """The negatives of pairs, as row numbers into the source; texts are read when asked for.

    Attributes:
        pairs: The pairs, in whose order everything stands.
        sources: Names that `source_index` points into.
        offsets: Where each pair's negatives begin and end, shape (pairs + 1,).
        document_rows: Row of each negative in the corpus, shape (n,).
        source_index: Position of its miner in `sources`, shape (n,).
        ranks: Its rank in the miner's whole list, from 1, positives counted; 0 for random; shape (n,).
        scores: The miner's score (cosine, inner product or BM25); NaN for random; shape (n,).
        report: What was kept and dropped.
        dense: The dense miner with its embeddings, where there was one.
    """

    pairs: Pairs
    sources: list[str]
    offsets: np.ndarray
    document_rows: np.ndarray
    source_index: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    report: MiningReport
    dense: DenseMiner | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[list[Negative]]:
        return iter_mined(self)


def iter_mined(mined: MinedNegatives) -> Iterator[list[Negative]]:
    """Yields each pair's negatives with their texts, in the order of the pairs.

    Within a pair they stand by miner, in the miners' order, and then by rank.
    """
    source = mined.pairs.source
    for start in range(0, len(mined), 512):
        stop = min(start + 512, len(mined))
        first, last = int(mined.offsets[start]), int(mined.offsets[stop])
        unique, inverse = np.unique(mined.document_rows[first:last], return_inverse=True)
        texts = source.documents(unique)
        ids = source.document_ids[unique]
        for pair in range(start, stop):
            yield [
                make_negative(
                    texts[inverse[i - first]],
                    mined.sources[mined.source_index[i]],
                    doc_id=str(ids[inverse[i - first]]),
                    rank=int(mined.ranks[i]) or None,
                    score=None if np.isnan(mined.scores[i]) else float(mined.scores[i]),
                )
                for i in range(int(mined.offsets[pair]), int(mined.offsets[pair + 1]))
            ]


def mine_pairs(pairs: Pairs, args: MiningArguments, seed: int = 0) -> MinedNegatives:
    """Mines negatives for pairs.

    Never a negative: what is judged relevant in any split of the source, to the query or to one of the
    same text under another id; a document with the text of such a positive, one with the text of the
    query, one without text. The depth counts beyond the positives (and documents of their text) where
    these are more than half of it. A document that two miners find
    counts for the one named first; the later one goes on down its list. Margins are taken from the
    pair's own positive. Under `accelerate launch` each process encodes and searches a share, and all
    return the same.

    Args:
        pairs: The pairs.
        args: Which miners and rules.
        seed: Seed of the random miner and of sampling.

    Returns:
        The negatives; deterministic given `seed`.

    Raises:
        InputError: For what a miner cannot use (see the miners), or where there are no pairs.
    """
    if not len(pairs):
        raise InputError(f"{pairs.source.name}: no pairs to mine for.")
    return _Mining(pairs, args, seed).run()


@dataclass(frozen=True)
class _Reach:
    """Queries that are searched to one depth, and their pairs.

    Attributes:
        queries: Positions of the queries, shape (n,).
        pairs: Positions of their pairs, shape (m,).
        at: Position of each pair's query in `queries`, shape (m,).
        depth: How deep is searched.
        own: How many candidates each query has at most, shape (n,).
    """

    queries: np.ndarray
    pairs: np.ndarray
    at: np.ndarray
    depth: int
    own: np.ndarray

    def blocks(self, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the pairs' positions and their queries' in `queries`, in bounded numbers."""
        step = min(_PAIRS_AT_ONCE, max(1, _CANDIDATES_AT_ONCE // max(1, width)))
        for start in range(0, len(self.pairs), step):
            yield self.pairs[start : start + step], self.at[start : start + step]


class _Mining:
    """One call of `mine_pairs`, with what its steps share."""

    def __init__(self, pairs: Pairs, args: MiningArguments, seed: int) -> None:
        self.pairs, self.args, self.seed = pairs, args, seed
        self.processes = Processes(cpu=choose_device(args.mining_device) == "cpu")
        self.queries, self.query_of_pair = np.unique(pairs.query_rows, return_inverse=True)
        self.report = MiningReport(
            len(pairs), args.mined_per_miner, args.short_rows, queries=len(self.queries)
        )
        self.dense: DenseMiner | None = None
        own = {name: own_miner(name) for name in args.miners if is_class_spec(name)}
        self.own = {miner.name: miner for miner in own.values()}
        # A miner of the user's own is called by its name, not by its file.
        self.miners = [own[name].name if name in own else name for name in args.miners]

    def run(self) -> MinedNegatives:
        args = self.args
        # What is wrong with them is said before anything is encoded.
        self.terms = Terms(args) if "bm25" in args.miners else None
        self._read_known()
        needs_dense = "dense" in args.miners or args.margin_scores == "dense"
        if needs_dense:
            self.dense = DenseMiner(self.pairs.source, args, self.queries, self.processes)
        names = [*self.miners, *(["random"] if args.short_rows == "random" else [])]
        sources = list(dict.fromkeys(names))
        taken = np.zeros((len(self.pairs), 0), dtype=np.int64)
        found: list[tuple[int, Candidates, np.ndarray]] = []
        for name in self.miners:
            kept = self._mine_with(name, taken)
            found.append((sources.index(name), *kept))
            taken = np.concatenate([taken, kept[0].rows], axis=1)
        return self._collect(sources, found)

    def _read_known(self) -> None:
        """Reads the keys of all texts, and every judged positive of the queries' texts."""
        source = self.pairs.source
        self.document_keys = document_keys(source)
        judged = [
            (query, document)
            for qrels in source.qrels.values()
            for query, documents in qrels.items()
            for document, relevance in documents.items()
            if relevance > 0
        ]
        queries = source.query_ids.get_indexer([query for query, _ in judged])
        documents = source.document_ids.get_indexer([document for _, document in judged])
        del judged
        there = (queries >= 0) & (documents >= 0)
        # The pairs' own positives count as such also where a caller made the pairs himself.
        queries = np.concatenate([queries[there], self.pairs.query_rows])
        documents = np.concatenate([documents[there], self.pairs.positive_rows])
        rows, of_judged = np.unique(queries, return_inverse=True)
        keys = text_keys(source.queries.select(rows.tolist())["text"][:])
        self.query_keys = keys[np.searchsorted(rows, self.queries)]
        # A query is its text: what is relevant to it under one id is so under every other.
        texts, self.text_of_query = np.unique(self.query_keys, return_inverse=True)
        text = np.minimum(np.searchsorted(texts, keys), len(texts) - 1)
        asked = (texts[text] == keys)[of_judged]
        table = np.unique(np.stack([text[of_judged][asked], documents[asked]], axis=1), axis=0)
        self.positives = np.split(table[:, 1], np.cumsum(np.bincount(table[:, 0]))[:-1])
        self.reaches = self._reaches()
        self.pair_keys = text_keys(
            f"{q}\t{d}"
            for q, d in zip(
                source.query_ids[self.pairs.query_rows],
                source.document_ids[self.pairs.positive_rows],
                strict=True,
            )
        )

    def _reaches(self) -> list[_Reach]:
        """Returns the queries by the depth that they are searched to.

        Documents with the text of a positive take up places as well. Depths are rounded, so that they are
        few, and do not depend on which other queries there are.
        """
        depth = self.args.mining_depth
        text = np.repeat(np.arange(len(self.positives)), [len(rows) for rows in self.positives])
        table, key = np.unique(self.document_keys[np.concatenate(self.positives)], return_inverse=True)
        place = np.minimum(np.searchsorted(table, self.document_keys), len(table) - 1)
        copies = np.bincount(place[table[place] == self.document_keys], minlength=len(table))
        text, key = np.unique(np.stack([text, key]), axis=1)
        known = np.bincount(text, weights=copies[key]).astype(np.int64)[self.text_of_query]
        own = np.where(2 * known > depth, depth + known, depth)
        searched = depth * 2 ** np.ceil(np.log2(own / depth)).astype(np.int64)
        reaches = []
        for each in np.unique(searched):
            queries = np.flatnonzero(searched == each)
            pairs = np.flatnonzero(searched[self.query_of_pair] == each)
            at = np.searchsorted(queries, self.query_of_pair[pairs])
            reaches.append(_Reach(queries, pairs, at, int(each), own[queries]))
        return reaches

    def _miner(self, name: str) -> Miner:
        if name in self.own:
            return self.own[name](self.pairs.source, self.args)
        if name == "bm25":
            return BM25Miner(self.pairs.source, self.args, self.terms)
        if name == "random":
            return RandomMiner(self.pairs.source, self.seed)
        assert self.dense is not None
        return self.dense

    def _mine_with(self, name: str, taken: np.ndarray) -> tuple[Candidates, np.ndarray]:
        """Returns one miner's negatives, shape (pairs, mined_per_miner), and their ranks."""
        args, report = self.args, MinerReport()
        self.report.miners[name] = report
        miner = self._miner(name)
        rules = Rules(
            keep=args.mined_per_miner,
            rank_from=args.rank_from if miner.ranked else 1,
            min_score=args.min_score.get(name),  # type: ignore[union-attr]
            max_score=args.max_score.get(name),  # type: ignore[union-attr]
            absolute_margin=args.absolute_margin.get(name),  # type: ignore[union-attr]
            relative_margin=args.relative_margin.get(name),  # type: ignore[union-attr]
            sampled=args.mined_selection == "sampled" and miner.ranked,
            sample_from=args.sample_from,
        )
        by_dense = self.dense is not None and miner is not self.dense and args.margin_scores == "dense"
        scorer: Miner = self.dense if by_dense else miner  # type: ignore[assignment]
        rows, scores, ranks = _nothing(len(self.pairs), rules.keep)
        for reach in self.reaches:
            candidates = self._search(miner, reach)
            report.unanswered += int((candidates.rows == MISSING).all(axis=1).sum())
            for here, at in reach.blocks(candidates.rows.shape[1]):
                mine = Candidates(candidates.rows[at], candidates.scores[at])
                found = self._sift(mine, here, rules, scorer, miner, taken[here], report)
                rows[here], scores[here], ranks[here] = found
        kept = (rows != MISSING).sum(axis=1)
        report.kept = int(kept.sum())
        report.short_rows = int((kept < rules.keep).sum())
        report.empty_rows = int((kept == 0).sum())
        return Candidates(rows, scores), ranks

    def _search(self, miner: Miner, reach: _Reach) -> Candidates:
        """Returns the best documents of all queries of a reach, on every process."""
        share = self.processes.share(self.queries[reach.queries])
        depth = min(reach.depth, len(self.pairs.source.corpus))
        # With more processes than queries some have none.
        nothing = Candidates(np.empty((0, depth), dtype=np.int64), np.empty((0, depth), dtype=np.float32))
        found = self.processes.join(miner.search(share, depth) if len(share) else nothing)
        beyond = np.arange(found.rows.shape[1]) >= reach.own[:, None]
        return Candidates(np.where(beyond, MISSING, found.rows), found.scores)

    def _sift(
        self,
        mine: Candidates,
        here: np.ndarray,
        rules: Rules,
        scorer: Miner,
        miner: Miner,
        taken: np.ndarray,
        report: MinerReport,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Applies the rules to a block of pairs; returns rows, scores and ranks of what is kept."""
        queries = self.query_of_pair[here]
        positive_rows = self.pairs.positive_rows[here]
        sieve = Sieve(mine, report)
        if miner.ranked:
            report.positives_beyond += int((~(mine.rows == positive_rows[:, None]).any(axis=1)).sum())
        sieve.drop_known(self._known(here), self._taken_keys(taken))
        sieve.drop_ranks(rules.rank_from)
        positive_scores, scores = None, mine.scores
        if rules.needs_positive:
            positive_scores = scorer.score(self.queries[queries], positive_rows)
            if scorer is not miner:
                scores = self.dense.rescore(self.queries[queries], mine)  # type: ignore[union-attr]
        sieve.drop_scores(rules, scores, positive_scores)
        sieve.select(rules, self.seed, self.pair_keys[here])
        return _compact(sieve.alive, mine, rules.keep, miner.ranked)

    def _known(self, here: np.ndarray) -> Known:
        queries = self.query_of_pair[here]
        each, of_pair = np.unique(queries, return_inverse=True)
        positives = [self.positives[text] for text in self.text_of_query[each]]
        offsets = np.cumsum([0, *(len(rows) for rows in positives)])[:-1]
        return Known(
            self.document_keys, self.query_keys[queries], np.concatenate(positives), offsets, of_pair
        )

    def _taken_keys(self, taken: np.ndarray) -> np.ndarray:
        return np.where(taken == MISSING, np.uint64(0), self.document_keys[np.maximum(taken, 0)])

    def _collect(self, sources: list[str], found: list[tuple[int, Candidates, np.ndarray]]) -> MinedNegatives:
        if self.args.short_rows == "random":
            found = [*found, self._fill(sources.index("random"), [rows.rows for _, rows, _ in found])]
        rows = np.concatenate([candidates.rows for _, candidates, _ in found], axis=1)
        scores = np.concatenate([candidates.scores for _, candidates, _ in found], axis=1)
        ranks = np.concatenate([ranks for *_, ranks in found], axis=1)
        owner = np.concatenate([np.full(c.rows.shape[1], index, dtype=np.int8) for index, c, _ in found])
        there = rows != MISSING
        return MinedNegatives(
            pairs=self.pairs,
            sources=sources,
            offsets=np.concatenate([[0], np.cumsum(there.sum(axis=1))]),
            document_rows=rows[there],
            source_index=np.broadcast_to(owner, rows.shape)[there],
            ranks=ranks[there],
            scores=scores[there],
            report=self.report,
            dense=self.dense,
        )

    def _fill(self, index: int, found: list[np.ndarray]) -> tuple[int, Candidates, np.ndarray]:
        """Returns random documents, for each pair as many as its miners are short of."""
        short = np.stack([(rows == MISSING).sum(axis=1) for rows in found], axis=1)
        wanted, taken = short.sum(axis=1), np.concatenate(found, axis=1)
        keep = int(wanted.max())
        # Another seed than the random miner's, whose documents are taken already.
        miner = RandomMiner(self.pairs.source, self.seed + 1)
        rows, scores, ranks = _nothing(len(self.pairs), keep)
        for reach in self.reaches:
            most = max(len(self.positives[text]) for text in self.text_of_query[reach.queries])
            candidates = miner.search(self.queries[reach.queries], 2 * (keep + taken.shape[1] + most) + 16)
            for here, at in reach.blocks(candidates.rows.shape[1]):
                mine = Candidates(candidates.rows[at], candidates.scores[at])
                sieve = Sieve(mine, MinerReport())
                sieve.drop_known(self._known(here), self._taken_keys(taken[here]))
                alive = sieve.alive & (np.cumsum(sieve.alive, axis=1) <= wanted[here, None])
                rows[here], scores[here], ranks[here] = _compact(alive, mine, keep, ranked=False)
        left = (rows != MISSING).sum(axis=1)
        for column, name in enumerate(self.miners):
            used = np.minimum(left, short[:, column])
            self.report.miners[name].filled = int(used.sum())
            left = left - used
        return index, Candidates(rows, scores), ranks


def _nothing(pairs: int, keep: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns rows, scores and ranks of pairs that have no negatives yet, shape (pairs, keep)."""
    return (
        np.full((pairs, keep), MISSING, dtype=np.int64),
        np.full((pairs, keep), np.nan, dtype=np.float32),
        np.zeros((pairs, keep), dtype=np.int32),
    )


def _compact(
    alive: np.ndarray, candidates: Candidates, keep: int, ranked: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moves what is alive to the left: rows, scores and ranks (0 for none), shape (pairs, keep)."""
    pairs, depth = alive.shape
    width = min(keep, depth)
    columns = np.argsort(~alive, axis=1, kind="stable")[:, :width]
    there = np.take_along_axis(alive, columns, axis=1)
    rows, scores, ranks = _nothing(pairs, keep)
    rows[:, :width] = np.where(there, np.take_along_axis(candidates.rows, columns, axis=1), MISSING)
    scores[:, :width] = np.where(there, np.take_along_axis(candidates.scores, columns, axis=1), np.nan)
    if ranked:
        ranks[:, :width] = np.where(there, columns + 1, 0)
    return rows, scores, ranks
