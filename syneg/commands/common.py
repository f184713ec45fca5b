"""What the subcommands share: where rows come from and where they go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syneg.config import OutputArguments

if TYPE_CHECKING:
    from datasets import Dataset

    from syneg.hub.cards import DatasetCardInfo
    from syneg.rows import Dropped, Row


@dataclass
class FolderArguments(OutputArguments):
    """The data set folder that is written."""

    overwrite: bool = field(
        default=False, metadata={"help": "Whether to replace a data set folder that is there already."}
    )
    repo_id: str | None = field(
        default=None, metadata={"help": "Hub id under which it is to be published, for the card's examples."}
    )


@dataclass
class RowsArguments:
    """A data set that is read."""

    dataset: str | None = field(
        default=None, metadata={"help": "Rows to start from: a folder that syneg wrote, or a Hub id."}
    )


def write_folder(
    output: FolderArguments,
    split: str,
    rows: Iterable[tuple[Row, list[Dropped]]],
    card: DatasetCardInfo,
) -> Path:
    """Writes rows as configuration `default`, and what was dropped as `dropped`, in one pass.

    Args:
        output: Where.
        split: The split's name.
        rows: The rows and what was dropped from each.
        card: What the card says; its reports are read after the last row, so they may fill up.

    Returns:
        The folder.
    """
    from syneg.hub.folders import FolderWriter
    from syneg.rows import DROPPED_FEATURES, FEATURES

    with FolderWriter(output.output, overwrite=output.overwrite) as folder:
        with ExitStack() as stack:
            default = stack.enter_context(folder.open_split("default", split, FEATURES))
            dropped = stack.enter_context(folder.open_split("dropped", split, DROPPED_FEATURES))
            for row, out in rows:
                default.add(row)
                for negative in out:
                    dropped.add(negative)
        folder.write_card(card)
    return Path(output.output)


def read_rows(spec: str, split: str) -> Dataset:
    """Returns the rows of a data set.

    Raises:
        InputError: Where there is none, or it does not have the columns of a row.
    """
    from syneg.hub.folders import load_split
    from syneg.rows import check_rows

    rows = load_split(spec, "default", split)
    check_rows(rows, spec)
    return rows


def read_dropped(spec: str, split: str) -> dict[tuple[str, str], list[Dropped]]:
    """Returns what a data set's `dropped` configuration holds, by (query id, positive id)."""
    from syneg.hub.folders import load_split

    grouped: dict[tuple[str, str], list[Dropped]] = {}
    # Empty where nothing was dropped, or no gate has seen the rows yet.
    rows: Any = load_split(spec, "dropped", split)
    for row in rows:
        grouped.setdefault((row["query_id"], row["positive_id"]), []).append(row)
    return grouped


def counted(rows: Iterable[Any], description: str, total: int) -> Iterator[Any]:
    """Yields the rows under a progress bar."""
    from tqdm import tqdm

    yield from tqdm(rows, desc=description, total=total, unit="row")
