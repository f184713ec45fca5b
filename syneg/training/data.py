"""What is checked of the training data before the first step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset

from syneg.errors import InputError
from syneg.training.columns import Columns, no_text, read_row, row_name

if TYPE_CHECKING:
    from syneg.training.collator import SyNegCollator

_LOOKED_FOR_SCORES = 1000
"""Rows among which one must have a teacher's scores."""
_PEEKED = 32
"""Rows that are read as in training, before it."""


def check_dataset(
    dataset: Any,
    collator: SyNegCollator,
    in_batch: bool,
    name: str = "train_dataset",
    whole_step: int = 1,
) -> None:
    """Checks before training what would otherwise fail in the middle of it, or be left out in silence.

    Of a stream the first rows are read; of a data set all rows' texts are looked at.

    Args:
        dataset: The rows; None is let through.
        collator: What reads them in training.
        in_batch: Whether there are in-batch negatives.
        name: What the data set is called in errors.
        whole_step: How many rows a step needs, where incomplete steps are left out.

    Raises:
        InputError: For a data set of an unknown kind or without rows, or with fewer than a step needs; a row
            with a text that is empty or none; a column that looks like negatives and is not read; a mixture
            that names a source no row has; a row without negatives where that is an error; or no negatives
            of any kind.
    """
    if not in_batch and not collator.mixture.asks_for_negatives:
        raise InputError(
            "the mixture has no negatives, and --in_batch_negatives is off: nothing to learn from."
        )
    if dataset is None:
        return
    if not isinstance(dataset, Dataset | IterableDataset):
        raise InputError(
            f"{name} is a {type(dataset).__name__}; give one datasets.Dataset or IterableDataset "
            "(datasets.concatenate_datasets joins several)."
        )
    if isinstance(dataset, Dataset) and len(dataset):
        _check_columns(dataset, collator)
    first = list(itertools.islice(dataset.with_format(None), max(_PEEKED, whole_step)))
    if not first:
        raise InputError(f"{name} has no rows.")
    if len(first) < whole_step:
        raise InputError(
            f"{name} has {len(first)} rows, fewer than the batch of {whole_step}, and --dataloader_drop_last "
            "leaves incomplete batches out: nothing to train on. Lower --per_device_train_batch_size or set "
            "--dataloader_drop_last false."
        )
    for number, row in enumerate(first[:_PEEKED]):
        try:
            collator.draw(collator.read(row))
        except InputError as error:
            raise InputError(f"{name}, row {number}: {error}") from None


def check_scored(dataset: Any, name: str = "train_dataset") -> None:
    """Checks that a teacher has scored rows that are to be distilled: without scores that loss is 0.

    Raises:
        InputError: Where none of the first rows has a teacher's scores.
    """
    if dataset is None:
        return
    first = list(itertools.islice(dataset.with_format(None), _LOOKED_FOR_SCORES))
    if not any(one.positive_teacher_score is not None for row in first for one in read_row(row).candidates):
        raise InputError(
            f"{name}: --distillation learns from a teacher's scores, and none of the first {len(first):,} "
            "rows has any. Score them: syneg gate --grade_only true with --gates teacher --teacher MODEL, or "
            "with --gates judge."
        )


def _check_columns(dataset: Dataset, collator: SyNegCollator) -> None:
    columns = Columns.among(tuple(dataset.column_names))
    wanted = columns.negatives if collator.mixture.asks_for_negatives else ()
    if collator.mixture.asks_for_negatives:
        types = dataset.features.arrow_schema
        for column in columns.unused:
            if _is_string(kind := types.field(column).type) or pa.types.is_nested(kind):
                raise columns.refuse(column)
    counts = np.zeros(len(dataset), dtype=np.int64)
    sources: set[str] | None = None
    start = 0
    # Row numbers are those of the data set as it was given, selected or shuffled.
    for table in dataset.with_format("arrow").iter(batch_size=10_000):
        for column in (columns.query, columns.positive):
            bad = _without_text(table[column].combine_chunks())
            if len(bad):
                row = dataset.with_format(None)[start + int(bad[0])]
                raise no_text(column, row[column], row, start + int(bad[0]))
        for column in wanted:
            rows, texts, found = _flat(table[column].combine_chunks())
            bad = rows[_without_text(texts)] if len(texts) else rows[:0]
            if len(bad):
                row = dataset.with_format(None)[start + int(bad[0])]
                raise no_text(column, _empty_item(row[column]), row, start + int(bad[0]))
            np.add.at(counts, start + rows, 1)
            if found is not None:
                sources = (sources or set()) | found
        start += len(table)
    if not wanted:
        return
    missing = [source for source in collator.mixture.sources if sources is not None and source not in sources]
    # Texts without a source may stand in for any.
    if missing and len(wanted) == 1:
        raise InputError(
            f"mixture '{collator.mixture}': no row has a negative of source {missing[0]!r} "
            f"(found: {', '.join(sorted(sources or ())) or 'none'}). Name what there is, as in "
            f"--mixture {min(sources or (), default='none')}{'=1' if sources else ''}."
        )
    empty = (counts == 0).nonzero()[0]
    if collator.empty_rows == "error" and len(empty):
        row = dataset.with_format(None)[int(empty[0])]
        raise InputError(
            f"row {int(empty[0])} ({row_name(row)}) has no negative "
            f"({len(empty)} such rows), but the mixture '{collator.mixture}' asks for some. Leave them "
            "out, or train them on in-batch negatives alone with --empty_rows in_batch."
        )


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _without_text(array: pa.Array) -> np.ndarray:
    """Returns the places where there is no text: null, blank, or no string at all."""
    if not _is_string(array.type):
        return np.arange(len(array))
    trimmed = pc.utf8_length(pc.utf8_trim_whitespace(array.cast(pa.large_string())))
    return np.asarray(pc.fill_null(pc.equal(trimmed, 0), True)).nonzero()[0]


def _flat(array: pa.Array) -> tuple[np.ndarray, pa.Array, set[str] | None]:
    """Returns the negatives of a column: each one's row, its text, and the sources, None where none is told.

    What is null is no negative.
    """
    rows = np.arange(len(array))
    if hasattr(array.type, "value_type"):
        rows = np.asarray(pc.list_parent_indices(array))
        array = pc.list_flatten(array)
    if array.null_count:
        rows, array = rows[np.asarray(array.is_valid())], array.drop_null()
    if not pa.types.is_struct(array.type):
        return rows, array, None
    names = [field.name for field in array.type]
    sources = None
    if "source" in names:
        sources = {str(s) for s in pc.unique(pc.struct_field(array, "source")).to_pylist() if s is not None}
    return rows, pc.struct_field(array, "text") if "text" in names else pa.nulls(len(array)), sources


def _empty_item(value: Any) -> Any:
    items: Iterable[Any] = value if isinstance(value, list) else [value]
    for item in items:
        text = item.get("text") if isinstance(item, Mapping) else item
        if item is not None and (not isinstance(text, str) or not text.strip()):
            return item
    return value
