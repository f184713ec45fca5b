"""Mixtures: how many negatives of each source one instance gets.

A draw is a pure function of (seed, epoch, identity of the row), so it is the same for any order of the
rows, any number of workers and processes, for streams, and after resuming.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from syneg.errors import InputError, nearest, unknown
from syneg.rows import SYNTHETIC
from syneg.text import normal_text

Kind = Literal["counts", "ratio", "direct", "all"]
ORDERS = ("random", "easy_to_hard", "hard_to_easy")
ANONYMOUS = "negative"
"""The source of a negative that names none (the columns of a triplet)."""

_GRAMMAR = (
    "Expected 'synthetic=1,dense=2', 'ratio:synthetic=0.7,dense=1,total=4', "
    "'direct:synthetic=1,dense=2,total=3', 'pure:synthetic=3', 'all' or 'none'."
)


@dataclass(frozen=True)
class Candidate:
    """A negative that may be drawn.

    Attributes:
        text: The document.
        source: Which miner found it, or "synthetic".
        doc_id: Its id in the corpus, where it has one.
        hardness: A number that grows with hardness (the miner's score), or None.
        difficulty: The difficulty that the LLM was asked for, or None.
        teacher_score: The teacher's score for it, or None.
        positive_teacher_score: The teacher's score for the row's positive, or None.
    """

    text: str
    source: str
    doc_id: str | None = None
    hardness: float | None = None
    difficulty: str | None = None
    teacher_score: float | None = None
    positive_teacher_score: float | None = None


@dataclass
class Draw:
    """The negatives of one instance in one epoch.

    Attributes:
        negatives: What was drawn.
        wanted: How many were asked for, by source.
        fallback: How many came from another source than the one asked for, by the source asked for.
        missing: How many could not be had at all.
    """

    negatives: list[Candidate] = field(default_factory=list)
    wanted: Counter[str] = field(default_factory=Counter)
    fallback: Counter[str] = field(default_factory=Counter)
    missing: int = 0


def row_generator(seed: int, epoch: int, identity: str, purpose: str = "draw") -> random.Random:
    """Returns the random numbers of one row in one epoch; equal arguments give equal numbers."""
    words = f"{purpose}\x1f{seed}\x1f{epoch}\x1f{identity}".encode()
    return random.Random(int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big"))


class Mixture:
    """How many negatives of each source one instance gets (PAPER: hybrid mixing, instance level).

    What is short falls back: first on the other listed sources, in their order, then on any source the
    row has but "synthetic", which is drawn from where it is listed only. What falls back and what is
    missing altogether is counted (`Draw`).

    Args:
        counts: Number by source, as in ``{"synthetic": 1, "dense": 2}``. Empty: no negatives of its own,
            so the loss sees in-batch negatives only.
        order: "random"; or a curriculum over the epochs by recorded difficulty or score,
            "easy_to_hard" or "hard_to_easy" (negatives of one source are then taken from a window that
            moves along their order).
        rise: Shifts the synthetic share over the epochs by this factor: 2 doubles what is asked for in
            the last epoch and 0.5 halves it, the total staying the same.

    Raises:
        InputError: For a count that is negative or not a number, or an unknown order.
    """

    def __init__(
        self, counts: Mapping[str, float] | None = None, *, order: str = "random", rise: float = 1.0
    ) -> None:
        self._set("counts", counts or {}, None, order, rise)
        for source, count in self.shares.items():
            if count != int(count):
                raise InputError(
                    f"mixture: {source}={count} is not a whole number; for a ratio write "
                    f"'ratio:{source}={count},...,total=N'."
                )

    def _set(
        self, kind: Kind, shares: Mapping[str, float], total: int | None, order: str, rise: float
    ) -> None:
        for source, share in shares.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < float("inf"):
                raise InputError(f"mixture: {source}={share!r} is not a number of at least 0. {_GRAMMAR}")
        if order not in ORDERS:
            raise unknown("order of negatives", order, ORDERS)
        if rise <= 0:
            raise InputError(f"mixture: rise={rise} must be above 0.")
        self.kind: Kind = kind
        self.shares = {source: float(share) for source, share in shares.items()}
        self.total = int(sum(self.shares.values())) if total is None else total
        self.order = order
        self.rise = rise
        if self.total < 0 or (
            kind in ("ratio", "direct") and self.total > 0 and not any(self.shares.values())
        ):
            raise InputError(f"mixture: nothing to draw the total of {self.total} from. {_GRAMMAR}")

    @classmethod
    def _make(
        cls,
        kind: Kind,
        shares: Mapping[str, float],
        total: int | None,
        order: str = "random",
        rise: float = 1.0,
    ) -> Mixture:
        mixture = cls.__new__(cls)
        mixture._set(kind, shares, total, order, rise)
        return mixture

    @classmethod
    def ratio(
        cls, shares: Mapping[str, float], total: int, *, order: str = "random", rise: float = 1.0
    ) -> Mixture:
        """Returns a mixture of `total` negatives an instance, in this ratio on average.

        A share that is no whole number is rounded up or down by row, at random but reproducibly: 0.7 : 1
        with a total of 4 is 1.65 synthetic ones a row on average. (The paper's sweep over R.)
        """
        return cls._make("ratio", shares, total, order, rise)

    @classmethod
    def direct(cls, shares: Mapping[str, float], total: int | None = None) -> Mixture:
        """Returns the paper's direct mix, an ablation: pooled over the data set.

        Each row takes all its negatives from one source; the sources' shares over the data set are
        those given.
        """
        return cls._make("direct", shares, total)

    @classmethod
    def pure(cls, source: str, total: int = 1) -> Mixture:
        """Returns a mixture with one source alone ("pure synthetic" is the paper's ablation)."""
        return cls({source: total})

    @classmethod
    def everything(cls) -> Mixture:
        """Returns the mixture that takes every negative of a row."""
        return cls._make("all", {}, 0)

    @classmethod
    def parse(cls, text: str | Mapping[str, float] | Mixture | None, **options: Any) -> Mixture:
        """Returns the mixture that a configuration names.

        Args:
            text: ``synthetic=1,dense=2`` (counts an instance); ``none``; ``all``;
                ``ratio:synthetic=0.7,dense=1,total=4``; ``direct:synthetic=1,dense=2,total=3``;
                ``pure:synthetic=3``; a mapping of counts; or a mixture, which is returned as it is.
            **options: `order` and `rise`, see the class.

        Raises:
            InputError: Where the text has none of these forms.
        """
        if isinstance(text, Mixture):
            return text
        if isinstance(text, Mapping):
            return cls(text, **options)
        text = (text or "none").strip()
        if text == "none":
            return cls({})
        if text == "all":
            return cls.everything()
        kind, colon, rest = text.rpartition(":")
        shares = _parse_shares(rest, text)
        if not colon:
            return cls(shares, **options)
        total = shares.pop("total", None)
        if total is not None and total != int(total):
            raise InputError(f"mixture {text!r}: total={total} is not a whole number.")
        if kind == "ratio" and total is not None:
            return cls.ratio(shares, int(total), **options)
        if kind == "direct":
            return cls.direct(shares, None if total is None else int(total))
        if kind == "pure" and len(shares) == 1 and total is None:
            return cls(shares, **options)
        known = ("ratio", "direct", "pure")
        hint = nearest(kind, known) if kind not in known else ""
        raise InputError(f"mixture {text!r} cannot be read.{hint} {_GRAMMAR}")

    @property
    def sources(self) -> list[str]:
        """The sources it names with a share above 0."""
        return [source for source, share in self.shares.items() if share > 0]

    @property
    def asks_for_negatives(self) -> bool:
        """Whether an instance is to have negatives of its own."""
        return self.total > 0 or self.kind == "all"

    def __repr__(self) -> str:
        return f"Mixture.parse({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mixture) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        if self.kind == "all":
            return "all"
        shares = ",".join(f"{source}={share:g}" for source, share in self.shares.items())
        if self.kind == "counts":
            return shares or "none"
        return f"{self.kind}:{shares},total={self.total}"

    def draw(
        self,
        candidates: Sequence[Candidate],
        *,
        seed: int,
        epoch: int,
        identity: str,
        num_epochs: int = 1,
        forbidden: frozenset[str] | set[str] = frozenset(),
    ) -> Draw:
        """Draws one instance's negatives.

        Args:
            candidates: The row's negatives, in the row's order.
            seed: The run's seed.
            epoch: The epoch, from 0.
            identity: What identifies the row: its ids, or a hash of its texts.
            num_epochs: How many epochs there will be, for a curriculum.
            forbidden: Texts that must not be drawn: the positives and the query. Compared without case
                and with runs of white space as one space.
        """
        groups = _group_by_source(candidates, forbidden)
        draw = Draw()
        if self.kind == "all":
            draw.negatives = [candidate for group in groups.values() for candidate in group]
            return draw
        generator = row_generator(seed, epoch, identity)
        progress = epoch / (num_epochs - 1) if num_epochs > 1 else 1.0
        draw.wanted = self._wanted(generator, progress)
        for group in groups.values():
            self._arrange(group, generator, progress)
        lacking: list[str] = []
        for source, count in draw.wanted.items():
            group = groups.get(source, [])
            draw.negatives += group[:count]
            lacking += [source] * (count - len(group[:count]))
            del group[:count]
        listed = [source for source in self.shares if source in groups]
        # What an LLM wrote is trained on where it is asked for, and never in place of something else.
        others = sorted(set(groups) - {*listed, SYNTHETIC})
        spare = [candidate for source in [*listed, *others] for candidate in groups[source]]
        draw.negatives += spare[: len(lacking)]
        draw.fallback = Counter(lacking[: len(spare)])
        draw.missing = max(len(lacking) - len(spare), 0)
        return draw

    def _wanted(self, generator: random.Random, progress: float) -> Counter[str]:
        shares = dict(self.shares)
        if SYNTHETIC in shares and self.rise != 1.0:
            shares[SYNTHETIC] *= self.rise**progress
        elif self.kind == "counts":
            return Counter({source: int(share) for source, share in shares.items()})
        sources, weights = list(shares), list(shares.values())
        if self.total == 0 or not any(weights):
            return Counter()
        if self.kind == "direct":
            return Counter({generator.choices(sources, weights)[0]: self.total})
        # Systematic sampling: counts add up to the total, each within 1 of its exact share, and exact
        # on average.
        start, reached, edges = generator.random(), 0.0, [0]
        for weight in weights:
            reached += weight * self.total / sum(weights)
            edges.append(int(reached + start))
        edges[-1] = self.total
        pairs = zip(sources, edges, edges[1:], strict=False)
        return Counter({source: max(upper - lower, 0) for source, lower, upper in pairs})

    def _arrange(self, group: list[Candidate], generator: random.Random, progress: float) -> None:
        """Puts one source's candidates in the order in which they are drawn."""
        if self.order == "random":
            generator.shuffle(group)
            return
        ranks = _hardness_ranks(group)
        centre = progress if self.order == "easy_to_hard" else 1 - progress
        keys = [abs(rank - centre) + 0.25 * generator.random() for rank in ranks]
        group[:] = [group[i] for i in sorted(range(len(group)), key=keys.__getitem__)]


def _group_by_source(
    candidates: Sequence[Candidate], forbidden: frozenset[str] | set[str]
) -> dict[str, list[Candidate]]:
    seen = {normal_text(text) for text in forbidden}
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        text = normal_text(candidate.text)
        if text and text not in seen:
            seen.add(text)
            groups.setdefault(candidate.source, []).append(candidate)
    return groups


def _hardness_ranks(group: Sequence[Candidate]) -> list[float]:
    """Returns each candidate's place from easiest (0) to hardest (1): by score, else by difficulty.

    A difficulty is known by the words of PAPER.md's attributes; what has neither is in the middle.
    """
    levels = ("foundational", "elementary", "intermediate", "college", "advanced", "expert")

    def hardness(candidate: Candidate) -> float | None:
        if candidate.hardness is not None:
            return candidate.hardness
        word = (candidate.difficulty or "").casefold()
        return next((float(level) for level, name in enumerate(levels) if word.startswith(name)), None)

    values = [hardness(candidate) for candidate in group]
    ordered = sorted({value for value in values if value is not None})
    place = {value: i / max(len(ordered) - 1, 1) for i, value in enumerate(ordered)}
    return [0.5 if value is None else place[value] for value in values]


def _parse_shares(text: str, whole: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for item in text.split(","):
        source, equals, number = (part.strip() for part in item.partition("="))
        try:
            if not source or not equals or source in shares:
                raise ValueError
            shares[source] = float(number)
        except ValueError:
            raise InputError(f"mixture {whole!r}: {item.strip()!r} cannot be read. {_GRAMMAR}") from None
    return shares
