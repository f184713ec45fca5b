"""A written source as a folder: whole or not at all, with what made it and what was dropped."""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syneg.config import OutputArguments
from syneg.errors import InputError
from syneg.gating.queries import WrittenQuery
from syneg.hub.folders import check_output
from syneg.hub.replacing import clear_leftovers, disk_errors, move_into_place, try_lock
from syneg.sources import Source
from syneg.sources.source import WRITTEN_NOTE as NOTE
from syneg.sources.source import WRITTEN_QUERIES

_DROPPED, _CARD = "dropped.jsonl", "README.md"
_OURS = {
    NOTE,
    WRITTEN_QUERIES,
    _DROPPED,
    _CARD,
    "corpus.jsonl",
    "queries.jsonl",
    "qrels/train.tsv",
    "qrels/test.tsv",
}
LIMITS = (
    "The queries were written by an LLM and not asked by people; a split test of them favours what resembles "
    "the writer.",
    "An LLM may know public texts and the queries that people put to them: on a private corpus expect a "
    "smaller gain than on a public one.",
)


@dataclass
class AskFolderArguments(OutputArguments):
    """The written source."""

    overwrite: bool = field(
        default=False, metadata={"help": "Whether to replace a written source that is there already."}
    )


@dataclass
class WrittenSource:
    """A source whose queries were written, and what came of the others.

    Attributes:
        source: The written source; real queries stand in it too where these were asked for.
        kept: Its written queries, in order.
        dropped: What the gates dropped, and completions that could not be read.
        facts: What was drawn, written and dropped, as plain values.
        lines: The same for people.
    """

    source: Source
    kept: list[WrittenQuery]
    dropped: list[WrittenQuery]
    facts: dict[str, Any]
    lines: list[str]


def save_written(written: WrittenSource, output: AskFolderArguments) -> Path:
    """Writes a written source as a folder, whole or not at all, and returns its path.

    Beside BEIR's files stand ``README.md``, ``written.json`` (what made it), ``written.jsonl`` and
    ``dropped.jsonl``: what was kept and what was not, with gate and reason; both can be replayed as
    recordings.

    Raises:
        InputError: Where the folder may not be replaced, or its disk is full.
    """
    folder = Path(output.output).absolute()
    check_folder(output)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex[:12]}")
        partial.mkdir()
        lock = try_lock(partial)
        try:
            written.source.save(partial)
            splits = {name: split for split, qrels in written.source.qrels.items() for name in qrels}
            with open(partial / WRITTEN_QUERIES, "w", encoding="utf-8") as file:
                file.writelines(_line(query, {"split": splits[query.id]}) for query in written.kept)
            with open(partial / _DROPPED, "w", encoding="utf-8") as file:
                file.writelines(
                    _line(query, {"gate": query.gate, "cause": query.cause, "reason": query.reason})
                    for query in written.dropped
                )
            note = json.dumps(written.facts, indent=1, ensure_ascii=False) + "\n"
            (partial / NOTE).write_text(note, encoding="utf-8")
            (partial / _CARD).write_text(_card(folder.name, written), encoding="utf-8")
            if lock is not None:
                lock.close()
            (partial / ".lock").unlink(missing_ok=True)
            move_into_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def check_folder(output: AskFolderArguments) -> None:
    """Checks, before any work, that the folder can be written.

    Raises:
        InputError: Where it exists and may not be replaced, or its place cannot be written to.
    """
    folder = Path(output.output).absolute()
    if not (folder / NOTE).is_file():
        check_output(folder)
        return
    if not output.overwrite:
        raise InputError(f"{folder}: exists. Choose another --output, or replace it with --overwrite.")
    for path in folder.rglob("*"):
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and relative not in _OURS:
            raise InputError(f"{folder}: holds {relative!r}, which syneg did not write; move it first.")
    check_output(folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}"))


def _line(query: WrittenQuery, further: dict[str, Any]) -> str:
    record = {"doc_id": query.document_id, "query": query.text, "query_id": query.id}
    record |= {
        name: getattr(query, name) for name in ("kind", "beside_query_id", "reasoning", "generator")
    } | further
    return json.dumps({k: v for k, v in record.items() if v not in (None, "")}, ensure_ascii=False) + "\n"


def _card(name: str, written: WrittenSource) -> str:
    facts = written.facts
    # What documents or LLMs say is in none of these lines but for names.
    lines = "\n".join(f"- {line.strip()}" for line in written.lines)
    real = facts["real_pairs"]
    beside = "" if real is None else f"; beside them stand its {real['queries']:,} real training queries"
    return f"""# {name}

A source in BEIR's layout whose queries were **written** by an LLM for documents of {facts["source"]}{beside}.

{lines}

`written.jsonl` has each written query with its document, kind and writer; `dropped.jsonl` what the gates \
dropped, with gate and reason. To gate otherwise, run the same `syneg ask` with other gates: its journal has \
every completion.

## Limits
{chr(10).join(f"- {limit}" for limit in LIMITS)}
"""
