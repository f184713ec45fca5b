"""The guard: own negatives that the model scores above the positive teach it to rank answers lower.

Looked at on a sample of rows before the first step, with the loss's own scores. A share of them is
ordinary where a model cannot rank yet, as it then scores any document above the positive; so that share,
of the sample's other positives, is taken into account.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch.distributed as dist
from datasets import IterableDataset
from transformers import TrainerCallback

from syneg.errors import InputError
from syneg.rows import SYNTHETIC
from syneg.training.sampling import in_turn

logger = logging.getLogger(__name__)

COST_SHARE = 1 / 40
"""Most rows of the sample, as a share of the run's: without a way back a row costs a third, so under 1%."""

FEWEST_ROWS = 64
"""Rows of the sample at least, where the data set has them."""

ROWS_TO_STOP = 16
"""Rows of the sample from which on a training is stopped; fewer are warned of."""

UNRANKED_WEIGHT = 1.75
"""How much harder than a random document an own negative may be for a model that cannot rank yet.

Measured with random weights: 16% of random documents are above the positive, and 37% of filtered BM25
negatives.
"""

HIGHEST_BOUND = 0.95
"""What no model excuses."""


@dataclass
class Above:
    """How many documents score above their query's positive.

    Attributes:
        rows: Rows of the sample.
        own: Own negatives, by source.
        own_above: Those above the positive, by source.
        others: Positives of other rows that each query was compared with.
        others_above: Those above its own.
    """

    rows: int = 0
    own: Counter[str] = field(default_factory=Counter)
    own_above: Counter[str] = field(default_factory=Counter)
    others: int = 0
    others_above: int = 0

    def add(self, other: Above) -> None:
        """Adds another sample's counts."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def share(self, source: str) -> float:
        """Returns the share of a source's negatives that are above the positive."""
        return self.own_above[source] / self.own[source]

    def bound(self, allowed: float) -> float:
        """Returns the share that is let through: what is allowed, and more where the model cannot rank."""
        unranked = self.others_above / self.others if self.others else 0.0
        raised = allowed + (1 - allowed) * UNRANKED_WEIGHT * unranked
        return max(allowed, min(raised, HIGHEST_BOUND))

    def verdict(self, allowed: float) -> str:
        """Returns what is wrong, with the figures of all sources and what to do, in one line; or ""."""
        bound = self.bound(allowed)
        bad = sorted(source for source in self.own if self.share(source) > bound)
        if not bad:
            return ""
        shares = ", ".join(f"{name} {self.share(name):.0%} of {self.own[name]}" for name in sorted(self.own))
        gate = "gate them (syneg gate --gates teacher --teacher ENCODER --teacher_kind bi-encoder)"
        filtered = "filter them when they are mined (--relative_margin 0.05)"
        remedy = gate if SYNTHETIC in bad else filtered
        return (
            f"the model scores too many {' and '.join(bad)} negatives above the positive, which training on "
            f"them teaches it to rank lower: {shares}, in {self.rows} rows (bound {bound:.0%}); {remedy}, "
            "leave them out of --mixture, or set --guard warn."
        )


class Counting(Protocol):
    """What the guard needs of a trainer: `ContrastiveTrainer` is one."""

    accelerator: Any
    args: Any
    model_wrapped: Any
    report: Any
    train_dataset: Any

    def count_above(self, rows: list[Any]) -> Above:
        """Returns how many of the rows' own negatives the model scores above their positive."""


class GuardCallback(TrainerCallback):
    """Looks at a sample of rows before the first step, and stops or warns as `guard` says."""

    def __init__(self, trainer: Counting) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Looks, unless a training goes on that was looked at when it began.

        Raises:
            InputError: Where `guard` is "error" and a source's share is above the bound, in 16 rows or more.
        """
        if args.guard == "off" or state.global_step:
            return
        instances = state.max_steps * args.train_batch_size * args.gradient_accumulation_steps
        size = min(args.guard_rows, max(int(COST_SHARE * instances * args.world_size), FEWEST_ROWS))
        above = self.look(sample_rows(self.trainer.train_dataset, size, args.seed))
        self.trainer.report.guard = above
        verdict = above.verdict(args.guard_share)
        # Of a few rows a share says little: they are warned of.
        if verdict and args.guard == "error" and above.rows >= ROWS_TO_STOP:
            raise InputError(f"guard: {verdict}")
        if verdict and state.is_world_process_zero:
            logger.warning("guard: %s", verdict)

    def look(self, rows: list[Any]) -> Above:
        """Counts over all processes, each of which looks at its part of the rows; drawn as in epoch 0."""
        trainer, above = self.trainer, Above()
        place = trainer.accelerator.process_index, trainer.accelerator.num_processes
        trainer.model_wrapped.eval()
        for batch in in_turn(len(rows), trainer.args.eval_batch_size, *place):
            above.add(trainer.count_above([rows[i] for i in batch]))
        if place[1] > 1:
            parts: list[Any] = [None] * place[1]
            dist.all_gather_object(parts, above)
            above = Above()
            for part in parts:
                above.add(part)
        return above


def sample_rows(dataset: Any, size: int, seed: int) -> list[Any]:
    """Returns rows of a data set at random, or a stream's first ones."""
    plain = dataset.with_format(None)
    if isinstance(dataset, IterableDataset):
        return list(itertools.islice(plain, size))
    chosen = np.random.default_rng((seed, 1)).choice(len(dataset), min(size, len(dataset)), replace=False)
    return plain.__getitems__(sorted(chosen.tolist()))
