"""What a training run counts and logs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from syneg.training.guard import Above
from syneg.training.instances import Instances
from syneg.training.objective import Record
from syneg.training.texts import Texts


@dataclass
class TrainingReport:
    """Counts over the whole run, and means since the last log line.

    Attributes:
        mixture: The mixture, as `Mixture.parse` reads it.
        instances: Instances trained on by this process.
        drawn: Negatives drawn, by source.
        fallback: Negatives drawn from another source than the one asked for, by the source asked for.
        missing: Negatives asked for that the rows did not have.
        without_negatives: Instances that had in-batch negatives only.
        tokens: Tokens embedded, without padding.
        seconds: Time in the steps.
        model: What the model was loaded from, for the card.
        dataset: What the rows were loaded from, for the card.
        processes: How many processes trained.
        metrics: Retrieval metrics for the card, by "before", "after" or another name.
        measured_on: What they were measured on, for the card; "(written)" where an LLM wrote the queries.
        guard: What the guard counted before the first step; None where it was off.
    """

    mixture: str = ""
    model: str = ""
    dataset: str = ""
    processes: int = 1
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    measured_on: str = ""
    guard: Above | None = None
    instances: int = 0
    drawn: Counter[str] = field(default_factory=Counter)
    fallback: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    without_negatives: int = 0
    tokens: int = 0
    seconds: float = 0.0
    _names: dict[int, str] = field(default_factory=dict)
    _records: list[Record] = field(default_factory=list)
    _variances: list[Tensor] = field(default_factory=list)
    _since: tuple[int, float] = (0, 0.0)

    def count(self, batches: list[dict[str, Any]], texts: Texts, seconds: float) -> None:
        """Counts one step's batches."""
        for batch in batches:
            counts = batch["counts"]
            self.instances += counts["instances"]
            self.drawn += counts["drawn"]
            self.fallback += counts["fallback"]
            self.missing += counts["missing"]
            self.without_negatives += counts["without_negatives"]
            self._names |= batch["sources"]
        self.tokens += int(texts.lengths.sum())
        self.seconds += seconds

    def record(self, record: Record) -> None:
        """Keeps what the loss saw, until the next log line."""
        self._records.append(record)

    def variance(self, gradient: Tensor, instances: Instances, total: int) -> None:
        """Keeps the variance over the instances of the gradient of each one's loss by its query.

        mean over i of |g_i - mean g|^2, with g_i of the instance's own loss (not divided by the batch
        size); after SyNeg, which compares 188.5 for its direct mix with 155.2 for the hybrid, without
        saying by what the gradient is taken: that it is the query's embedding is our reading.
        """
        own = gradient[instances.query] * total
        if len(own):
            self._variances.append((own - own.mean(dim=0)).square().sum(dim=1).mean())

    def take(self, accelerator: Any) -> dict[str, float]:
        """Returns the means since the last call, over this process's records, and starts anew.

        All processes must call it together. Where in-batch negatives span the processes every process
        has the records of all; otherwise a log line shows the main process's part.
        """
        logs: dict[str, float] = {}
        names = self._names
        if accelerator.num_processes > 1:
            everyone: list[Any] = [None] * accelerator.num_processes
            dist.all_gather_object(everyone, names)
            names = {key: name for part in everyone for key, name in part.items()}
        records = self._records
        if records:
            positive = torch.cat([r.positive for r in records])
            source = torch.cat([r.source.reshape(-1) for r in records])
            similarity = torch.cat([r.similarity.reshape(-1) for r in records])
            mass = torch.cat([r.mass.reshape(-1) for r in records])
            whole = torch.cat([r.mass.sum(dim=1) for r in records])
            logs["positive_similarity"] = positive.mean().item()
            logs["masked_false_negatives"] = sum(float(r.masked) for r in records) / max(len(positive), 1)
            logs["positive_first"] = torch.cat([r.rank_first for r in records]).float().mean().item()
            for key, name in sorted(names.items(), key=lambda item: item[1]):
                chosen = source == key
                if chosen.any():
                    above = torch.cat([(r.similarity > r.positive[:, None]).reshape(-1) for r in records])
                    logs[f"{name}_above_positive"] = above[chosen].float().mean().item()
                    logs[f"{name}_similarity"] = similarity[chosen].mean().item()
                    logs[f"{name}_mass"] = (mass[chosen].sum() / len(positive)).item()
            logs["own_negatives_mass"] = whole.mean().item()
        if self._variances:
            logs["gradient_variance"] = torch.stack(self._variances).mean().item()
        tokens, seconds = self._since
        if self.seconds > seconds:
            logs["tokens_per_second"] = (self.tokens - tokens) / (self.seconds - seconds)
        self._since = (self.tokens, self.seconds)
        self._records, self._variances = [], []
        return {name: round(value, 4) for name, value in logs.items()}
