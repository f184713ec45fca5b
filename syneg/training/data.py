"""The training data: checks before the first step, and a loader that knows its epoch."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader

from syneg.errors import InputError
from syneg.training.collator import SyNegCollator


class EpochLoader(DataLoader):
    """A data loader that hands the epoch on to its sampler and to a streamed data set."""

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        for part in (self.batch_sampler, self.dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)


def check_dataset(dataset: Any, collator: SyNegCollator, in_batch: bool) -> None:
    """Checks before training what would otherwise fail in the middle of it.

    Raises:
        InputError: For a data set of an unknown kind or without rows; a mixture that names a source no
            row has; a row without negatives where that is an error; or no negatives of any kind.
    """
    if not in_batch and not collator.mixture.asks_for_negatives:
        raise InputError(
            "the mixture has no negatives, and --in_batch_negatives is off: nothing to learn from."
        )
    if dataset is None or isinstance(dataset, IterableDataset):
        return
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"train_dataset is a {type(dataset).__name__}; give one datasets.Dataset or IterableDataset "
            "(datasets.concatenate_datasets joins several)."
        )
    if len(dataset) == 0:
        raise InputError("train_dataset has no rows.")
    if "negatives" not in dataset.column_names or not collator.mixture.asks_for_negatives:
        return
    column = dataset.select_columns(["negatives"]).with_format("arrow")[:]["negatives"].combine_chunks()
    if not hasattr(column.type, "value_type") or not hasattr(column.type.value_type, "get_field_index"):
        return  # Plain texts have no sources.
    _check_sources(column, collator)
    if collator.empty_rows == "error":
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        empty = pc.equal(lengths, 0).to_numpy(zero_copy_only=False).nonzero()[0]
        if len(empty):
            row = dataset[int(empty[0])]
            raise InputError(
                f"row {int(empty[0])} ({row.get('query_id')}/{row.get('positive_id')}) has no negative "
                f"({len(empty)} such rows), but the mixture '{collator.mixture}' asks for some. Leave them "
                "out, or train them on in-batch negatives alone with --empty_rows in_batch."
            )


def _check_sources(column: Any, collator: SyNegCollator) -> None:
    values = pc.list_flatten(column)
    if values.type.get_field_index("source") < 0:
        return
    found = sorted(s for s in pc.unique(pc.struct_field(values, "source")).to_pylist() if s is not None)
    missing = [source for source in collator.mixture.sources if source not in found]
    if missing:
        raise InputError(
            f"mixture '{collator.mixture}': no row has a negative of source {missing[0]!r} "
            f"(found: {', '.join(found) or 'none'})."
        )
