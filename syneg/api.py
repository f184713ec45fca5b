"""The stages as functions of plain arguments, for a notebook or a script.

Each takes the options of the command of its name as keyword arguments, and says what is wrong in their words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from syneg import asking, building
from syneg.building import FolderArguments, StageArguments
from syneg.errors import InputError, nearest
from syneg.gating.arguments import GatingArguments
from syneg.gating.queries import QueryGateArguments
from syneg.llm.journal import Journal
from syneg.mining.arguments import MiningArguments
from syneg.sources import SourceArguments
from syneg.writing.arguments import GenerationArguments
from syneg.writing.query_arguments import QueryArguments

P = ParamSpec("P")
R = TypeVar("R")


def _in_python(function: Callable[P, R]) -> Callable[P, R]:
    """Has errors speak of arguments, as in `overwrite`, where the command line speaks of `--overwrite`."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise type(error)(re.sub(r"(?<![\w-])--(?=[a-z])", "", str(error))) from error

    return wrapped


@_in_python
def ask(source: str | Path, output: str | Path, *, seed: int = 0, **options: Any) -> Path:
    """Has an LLM write queries for a source's documents, and gates them.

    Completions are journalled in ``<output>-journal`` (or `journal`) as they come: run it again to go on.

    Examples:
        >>> folder = ask("data/manuals", "out/asked", llm="Qwen/Qwen3-4B-Instruct-2507", documents=2000)
        >>> mined = mine(folder, "out/mined")

    Args:
        source: What `load_source` takes; documents alone are enough.
        output: The folder of the written source.
        seed: Seed of every draw and of the sampling.
        **options: Any of `SourceArguments`, `QueryArguments`, `QueryGateArguments` and `AskFolderArguments`.

    Returns:
        The folder, in BEIR's layout, which every stage takes as its source.

    Raises:
        InputError: Where an argument, the source, a gate or the engine cannot be used. No completion is lost.
    """
    options |= {"source": str(source), "output": str(output), "seed": seed}
    kinds = (asking.AskFolderArguments, SourceArguments, QueryArguments, QueryGateArguments)
    folder, where, args, gates = _arguments(options, *kinds)
    asking.ask_queries(where, args, gates, folder)
    return Path(output)


@_in_python
def mine(
    source: str | Path, output: str | Path, *, split: str = "train", seed: int = 0, **options: Any
) -> Path:
    """Mines negatives for the pairs of a source.

    Examples:
        >>> folder = mine("data/scifact", "out/mined", miners=["bm25"], mined_per_miner=4)
        >>> rows = load_dataset(str(folder), split="train")

    Args:
        source: What `load_source` takes.
        output: The data set folder that is written.
        split: The split, or several divided by commas.
        seed: Seed of every random choice.
        **options: Any of `SourceArguments`, `MiningArguments` and `FolderArguments`, such as `overwrite`.

    Returns:
        The folder, which `datasets.load_dataset` reads.

    Raises:
        InputError: Where an argument, the source or a miner cannot be used.
    """
    options |= {"source": str(source), "output": str(output), "split": split, "seed": seed}
    folder, where, args = _arguments(options, FolderArguments, SourceArguments, MiningArguments)
    parts = building.mine_parts(where, args, folder.seed)
    building.write_folder(parts, folder, building.new_card(folder, where.source))
    return Path(output)


@_in_python
def write_negatives(
    output: str | Path,
    *,
    source: str | Path | None = None,
    dataset: str | Path | None = None,
    split: str = "train",
    seed: int = 0,
    **options: Any,
) -> Path:
    """Has an LLM write negatives for the pairs of a source, or of a finished data set.

    Completions are journalled in ``<output>-journal`` (or `journal`) as they come: run it again to go on.

    Examples:
        >>> folder = write_negatives("out/written", dataset="out/mined", llm="Qwen/Qwen3-4B-Instruct-2507")

    Args:
        output: The data set folder that is written.
        source: What `load_source` takes.
        dataset: A data set folder or a Hub id, in place of `source`.
        split: The split, or several divided by commas.
        seed: Seed of the attributes and of the sampling.
        **options: Any of `SourceArguments`, `GenerationArguments` and `FolderArguments`.

    Returns:
        The folder.

    Raises:
        InputError: Where an argument, the source or the engine cannot be used. No completion is lost.
    """
    if (source is None) == (dataset is None):
        raise InputError("write_negatives takes either source or dataset: what are negatives written for?")
    options |= {"output": str(output), "split": split, "seed": seed}
    options |= {} if source is None else {"source": str(source)}
    folder, where, args = _arguments(options, FolderArguments, SourceArguments, GenerationArguments)
    rows = None if dataset is None else str(dataset)
    with Journal(args.journal or f"{output}-journal") as journal:
        parts = building.generate_parts(rows, where, args, journal, folder.seed)
        building.write_folder(parts, folder, building.new_card(folder, where.source, dataset=rows))
    return Path(output)


@_in_python
def gate(
    dataset: str | Path, output: str | Path, *, split: str = "train", seed: int = 0, **options: Any
) -> Path:
    """Sends the rows of a data set through gates; nothing is generated.

    Examples:
        >>> folder = gate("out/written", "out/gated", gates=["checks"], max_length_ratio=2.0)
        >>> dropped = load_dataset(str(folder), "dropped", split="train")

    Args:
        dataset: A data set folder or a Hub id.
        output: The data set folder that is written.
        split: The split, or several divided by commas.
        seed: Seed of the judge's sampling.
        **options: Any of `GatingArguments`, `FolderArguments` and, for the judge, `GenerationArguments`.

    Returns:
        The folder.

    Raises:
        InputError: Where an argument, the rows or a gate cannot be used.
    """
    options |= {"output": str(output), "seed": seed}
    folder, args, generation = _arguments(options, FolderArguments, GatingArguments, GenerationArguments)
    journal = Path(generation.journal or f"{output}-journal")
    parts = building.gate_parts(str(dataset), split, args, generation, journal, folder.seed)
    card = building.new_card(folder, str(dataset), dataset=str(dataset))
    building.write_folder(parts, folder, card, audit=args)
    return Path(output)


@_in_python
def build(
    output: str | Path, *, config: str | Path | None = None, seed: int = 0, **options: Any
) -> dict[str, Any]:
    """Mines, writes and gates, and writes a Hub-ready data set folder.

    Examples:
        >>> report = build("out/mine", source="data/mine", name="mine", engine="vllm")
        >>> print("\\n".join(report["train"]["lines"]))

    Args:
        output: The data set folder that is written.
        config: A YAML file, or the name of one that is shipped, whose keys `options` replace.
        seed: Seed of every random choice.
        **options: Any of `StageArguments` and `FolderArguments`.

    Returns:
        For each split the stages' reports as plain values, and under "lines" as lines for people.

    Raises:
        InputError: Where an argument or what it names cannot be used. No completion is lost.
    """
    given: dict[str, Any] = {}
    if config is not None:
        words = ["--config", str(building.config_file(config))]
        words += [f"--source={options['source']}"] if "source" in options else []
        parser = building.data_set_parser(kind=building.ShippedConfigParser)
        for stage in parser.parse(words):
            given |= vars(stage)
        print(*parser.notes, sep="\n", end="\n" * bool(parser.notes))
    given |= options | {"output": str(output), "seed": seed}
    folder, args = _arguments(given, FolderArguments, StageArguments)
    args.journal = args.journal or f"{output}-journal"
    return building.build_folder(args, folder)


def _arguments(options: dict[str, Any], *kinds: type) -> list[Any]:
    """Fills dataclasses from keyword arguments.

    Raises:
        InputError: For a name that none of them has; names the nearest.
    """
    names = [{one.name for one in fields(kind) if one.init} for kind in kinds]
    known = set().union(*names)
    for name in options:
        if name not in known:
            raise InputError(f"unknown argument {name!r}.{nearest(name, known)}")
    if options.get("dry_run"):
        raise InputError("dry_run has no effect in Python; run the command, as in `syneg build --dry_run`.")
    return [
        kind(**{name: options[name] for name in mine & options.keys()})
        for kind, mine in zip(kinds, names, strict=True)
    ]
