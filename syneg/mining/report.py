"""What mining kept and dropped, by miner and rule."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

RULES = {
    "positive": "is a positive of the query",
    "equal to positive": "has the text of a positive under another id",
    "equal to query": "has the text of the query",
    "empty": "has no text",
    "repeated": "has the text of a better ranked candidate",
    "earlier miner": "was kept under an earlier miner's name",
    "rank": "ranks above --rank_from",
    "min_score": "scores below --min_score",
    "max_score": "scores above --max_score",
    "absolute_margin": "scores too near to the positive (--absolute_margin)",
    "relative_margin": "scores too near to the positive (--relative_margin)",
    "selection": "not among those taken (--mined_per_miner, --mined_selection)",
}
"""Why a candidate is not a negative, in the order in which the rules are applied."""

_RARE = ("empty",)
"""Rules that are told of only where they dropped something."""
_WARN_ABOVE = 0.03
"""Share of the queries without any candidate from which there is a warning."""


@dataclass
class MinerReport:
    """One miner's figures. A candidate counts under the first rule that drops it.

    Attributes:
        candidates: (pair, document) that the miner found within the depth.
        kept: Those that became negatives.
        dropped: Those that did not, by rule.
        short_rows: Pairs with fewer negatives than `mined_per_miner`.
        empty_rows: Pairs without any, part of `short_rows`.
        filled: Random documents put in for them (``--short_rows random``).
        positives_beyond: Pairs whose positive is not within the depth.
        unanswered: Queries without any candidate.
    """

    candidates: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {rule: 0 for rule in RULES if rule not in _RARE})
    short_rows: int = 0
    empty_rows: int = 0
    filled: int = 0
    positives_beyond: int = 0
    unanswered: int = 0


@dataclass
class MiningReport:
    """What mining came to.

    Attributes:
        pairs: Pairs mined for.
        per_miner: Negatives asked for, for each pair and miner.
        short_rows: What was done about short rows: "keep" or "random".
        miners: Figures by miner, in the order of the miners.
        queries: Queries that the pairs have between them.
    """

    pairs: int
    per_miner: int
    short_rows: str
    miners: dict[str, MinerReport] = field(default_factory=dict)
    queries: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures as plain values; those of queries without candidates where there are any."""
        values = asdict(self)
        if not any(miner.unanswered for miner in self.miners.values()):
            del values["queries"]
        for miner in values["miners"].values():
            if not miner["unanswered"]:
                del miner["unanswered"]
        return values

    def lines(self) -> list[str]:
        """Returns the figures as lines for a person."""
        lines = []
        for name, miner in self.miners.items():
            share = miner.kept / miner.candidates if miner.candidates else 0.0
            lines.append(
                f"{name}: kept {miner.kept:,} of {miner.candidates:,} candidates ({share:.1%}) "
                f"for {self.pairs:,} pairs, {self.per_miner} asked for a pair"
            )
            lines += [f"  dropped {count:,}: {RULES[rule]}" for rule, count in miner.dropped.items() if count]
            if name != "random":
                lines.append(f"  {miner.positives_beyond:,} pairs have their positive beyond the depth")
            if miner.short_rows:
                remedy = (
                    f"filled with {miner.filled:,} random documents"
                    if self.short_rows == "random"
                    else "kept short"
                )
                lines.append(
                    f"  {miner.short_rows:,} pairs are short of negatives "
                    f"({miner.empty_rows:,} have none): {remedy}"
                )
        return lines + self.warnings()

    def warnings(self) -> list[str]:
        """Returns what to do where a miner found nothing at all for many queries, or nothing."""
        return [
            f"WARNING: {name} found no candidate for {miner.unanswered:,} of {self.queries:,} queries "
            f"({miner.unanswered / self.queries:.1%}): they share no term with any document. If they are in "
            "the documents' language, give --bm25_tokenizer a Hugging Face tokenizer that knows it; if not, "
            "mine with --miners dense and an encoder of both."
            for name, miner in self.miners.items()
            if self.queries and miner.unanswered > _WARN_ABOVE * self.queries
        ]
