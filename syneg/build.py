"""From a source's split to the rows of a data set: mining, generation and gating in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syneg.config import split_commas
from syneg.errors import InputError
from syneg.gating.apply import apply_gates
from syneg.gating.arguments import GatingArguments
from syneg.mining.arguments import MiningArguments
from syneg.mining.mine import MinedNegatives, iter_mined, mine
from syneg.rows import (
    MIRROR,
    SYNTHETIC,
    Dropped,
    Negative,
    Row,
    make_dropped,
    make_negative,
    make_row,
    mirror_ids,
)
from syneg.sources import Pair, Pairs, SourceArguments
from syneg.writing.arguments import GenerationArguments
from syneg.writing.generate import SyntheticResult, iter_synthetic, run_generation
from syneg.writing.strategies import find_strategy


@dataclass
class BuildArguments:
    """What a data set is called and made of, beyond its stages."""

    name: str = field(default="hardneg", metadata={"help": "The data set's name."})
    version: str = field(default="1.0.0", metadata={"help": "The data set's version."})
    licence: str | None = field(
        default=None, metadata={"help": "The data set's licence, as the Hub names it (apache-2.0, other)."}
    )
    languages: list[str] = field(
        default_factory=lambda: ["en"], metadata={"help": "ISO 639 codes of its languages."}
    )
    source_datasets: list[str] = field(
        default_factory=list, metadata={"help": "Hub ids of the data sets it derives from."}
    )
    triplet_negatives: int = field(
        default=4, metadata={"help": "Negatives a row of the configuration 'triplet'; shorter rows are out."}
    )
    pairs_without_negatives: str = field(
        default="error",
        metadata={
            "help": "What happens to a pair that ends without negatives: error, keep or drop (counted).",
            "choices": ["error", "keep", "drop"],
        },
    )

    def __post_init__(self) -> None:
        self.languages = split_commas(self.languages)
        self.source_datasets = split_commas(self.source_datasets)
        if self.triplet_negatives < 1:
            raise InputError(f"--triplet_negatives is {self.triplet_negatives}; it must be 1 or more.")


@dataclass
class StageArguments(BuildArguments, SourceArguments, MiningArguments, GenerationArguments, GatingArguments):
    """Everything that determines a data set."""

    seed: int = 0

    def __post_init__(self) -> None:
        for stage in (BuildArguments, MiningArguments, GenerationArguments, GatingArguments):
            stage.__post_init__(self)


def assemble_rows(
    pairs: Iterable[Pair],
    mined: Iterable[list[Negative]] | None = None,
    synthetic: Iterable[SyntheticResult] | None = None,
) -> Iterator[tuple[Row, list[Dropped], dict[str, str]]]:
    """Joins what the stages made of each pair.

    Args:
        pairs: The pairs.
        mined: Each pair's mined negatives, in the pairs' order; None where nothing was mined.
        synthetic: Each pair's synthetic ones, likewise.

    Yields:
        The row, with synthetic negatives first; what generation failed on, as dropped; and the query
        that a synthetic negative satisfies, by its text, where the LLM wrote one.
    """
    mined_iterator = iter(mined) if mined is not None else None
    synthetic_iterator = iter(synthetic) if synthetic is not None else None
    for pair in pairs:
        row = make_row(pair.query_id, pair.query, pair.positive_id, pair.positive)
        dropped: list[Dropped] = []
        mirrors: dict[str, str] = {}
        if synthetic_iterator is not None:
            result = next(synthetic_iterator)
            row["negatives"] += result.negatives
            dropped = [make_dropped(row, raw, "parse", reason) for raw, reason in result.failures]
            written = zip(result.negatives, result.mirrors, strict=True)
            mirrors = {negative["text"]: query for negative, query in written if query}
        if mined_iterator is not None:
            row["negatives"] += next(mined_iterator)
        yield row, dropped, mirrors


def mirror_rows(row: Row, mirrors: dict[str, str]) -> Iterator[Row]:
    """Yields `row` turned round for each synthetic negative that says which query it satisfies.

    The mirrored row has that query, the synthetic document as its positive and the row's own positive
    among its negatives, so that being synthetic no longer predicts being negative.
    """
    number = 0
    for negative in row["negatives"]:
        query = mirrors.get(negative["text"])
        if negative["source"] != SYNTHETIC or not query:
            continue
        number += 1
        query_id, document_id = mirror_ids(row, number)
        positive = make_negative(row["positive"], MIRROR, doc_id=row["positive_id"])
        yield make_row(query_id, query, document_id, negative["text"], [positive], MIRROR)


class SplitBuild:
    """The building of one split.

    Args:
        pairs: Its pairs.
        args: The arguments of all stages.
        journal: The folder of the journal.

    Attributes:
        lines: What each stage has to say to a person; complete once the rows have been read.
        report: The same as values.
    """

    def __init__(self, pairs: Pairs, args: StageArguments, journal: Path) -> None:
        self.pairs, self.args, self.journal = pairs, args, journal
        self.lines: list[str] = []
        self.report: dict[str, Any] = {}
        self._mined: MinedNegatives | None = None
        self._lookup: _MinedTexts | None = None

    def prepare(self) -> None:
        """Mines, and asks for the completions that the journal lacks: all that takes long.

        Raises:
            InputError: For what a stage cannot use. The journal keeps every completion.
        """
        self._mined = mine(self.pairs, self.args, self.args.seed)
        self._say("mining", self._mined.report)
        if find_strategy(self.args.strategy).wants_mined:
            self._lookup = _MinedTexts(self._mined)
        generation = run_generation(self.pairs, self.args, self.journal, self.args.seed, mined=self._lookup)
        self._say("generation", generation)

    def rows(self) -> Iterator[tuple[Row, list[Dropped]]]:
        """Yields the rows that the gates let through, mirrored rows behind their own, and what was
        dropped; deterministic given the journal.

        Raises:
            InputError: For a pair without negatives, unless the arguments say to keep or drop it.
        """
        assert self._mined is not None, "prepare() comes first"
        failed: dict[tuple[str, str], list[Dropped]] = {}
        mirrors: dict[tuple[str, str], dict[str, str]] = {}

        def feed() -> Iterator[Row]:
            synthetic = iter_synthetic(
                self.pairs, self.args, self.journal, self.args.seed, mined=self._lookup
            )
            assert self._mined is not None
            for row, dropped, queries in assemble_rows(self.pairs, iter_mined(self._mined), synthetic):
                identity = row["query_id"], row["positive_id"]
                # A recording may hold such queries though nobody asks for mirrored rows.
                failed[identity], mirrors[identity] = dropped, queries if self.args.mirror else {}
                yield row

        gating = apply_gates(
            feed(), self.args, self.args.seed, generation=self.args, journal=self.journal / "judge"
        )
        counts = {"rows": 0, "mirrored": 0, "without_negatives": 0, "unparsed": 0}
        for row, dropped in gating:
            identity = row["query_id"], row["positive_id"]
            dropped = failed.pop(identity, []) + dropped
            counts["unparsed"] += sum(negative["gate"] == "parse" for negative in dropped)
            turned = list(mirror_rows(row, mirrors.pop(identity, {})))
            if not row["negatives"]:
                self._without_negatives(row, dropped, counts)
            keep = row["negatives"] or self.args.pairs_without_negatives == "keep"
            counts["rows"] += bool(keep) + len(turned)
            counts["mirrored"] += len(turned)
            if keep:
                yield row, dropped
            yield from ((mirrored, []) for mirrored in turned)
        self._say("gating", gating.tolls)
        self.report["rows"] = counts
        self.lines += [f"rows: {counts['rows']:,} ({counts['mirrored']:,} mirrored)"]
        if counts["without_negatives"]:
            self.lines.append(
                f"  {counts['without_negatives']:,} pairs were left without negatives: "
                f"{'kept as they are' if self.args.pairs_without_negatives == 'keep' else 'left out'}"
            )

    def _without_negatives(self, row: Row, dropped: Sequence[Dropped], counts: dict[str, int]) -> None:
        counts["without_negatives"] += 1
        if self.args.pairs_without_negatives == "error":
            why = f"; dropped: {dropped[0]['gate']}: {dropped[0]['reason']}" if dropped else ""
            raise InputError(
                f"pair (query {row['query_id']!r}, positive {row['positive_id']!r}) has no negative left"
                f"{why}. Loosen the rules, add a miner, or pass --pairs_without_negatives drop (or keep); "
                "no completion is lost."
            )

    def _say(self, stage: str, report: Any) -> None:
        self.report[stage] = report.to_dict()
        self.lines += report.lines()


class _MinedTexts:
    """Gives a pair's mined texts, best first, to a strategy that starts from one."""

    def __init__(self, mined: MinedNegatives) -> None:
        self._mined = mined
        source = mined.pairs.source
        queries = source.query_ids[mined.pairs.query_rows]
        positives = source.document_ids[mined.pairs.positive_rows]
        self._at = {identity: i for i, identity in enumerate(zip(queries, positives, strict=True))}

    def __call__(self, pair: Pair) -> Sequence[str]:
        at = self._at[pair.query_id, pair.positive_id]
        rows = self._mined.document_rows[self._mined.offsets[at] : self._mined.offsets[at + 1]]
        return self._mined.pairs.source.documents(rows) if len(rows) else []
