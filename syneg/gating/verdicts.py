"""Recorded verdicts: a JSONL of an LLM's or of people's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from syneg.errors import InputError
from syneg.llm.recordings import PairLines, RecordedJournal, Recordings
from syneg.llm.requests import Completion, Request
from syneg.resources import resource_path

VERDICTS = ("yes", "partly", "no")


class RecordedVerdicts:
    """A JSONL of verdicts on whether a document satisfies a query.

    One JSON object a line: query_id, doc_id, verdict (yes, partly or no), and where known evidence (for
    yes and partly, a passage of the document; one that is not in it makes the verdict unreadable),
    reasoning and generator. A pair has one line. A synthetic document's doc_id is
    ``syneg.gating.judge.document_key`` of it.

    Args:
        path: The file.

    Raises:
        InputError: For a malformed line; names its number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines = PairLines(
            path,
            "--judge_recordings",
            "doc_id",
            ("verdict",),
            ("evidence", "reasoning", "generator"),
            choices={"verdict": VERDICTS},
        )

    def find(self, request: Request) -> Completion | None:
        """Returns the line as a judge's completion."""
        record = self._lines.get(request.query_id, request.positive_id)
        if record is None or request.attempt > 0:
            return None
        fields = {
            "reasoning": record.get("reasoning") or "",
            "evidence": record.get("evidence") or "",
            "verdict": record["verdict"],
        }
        return Completion(
            key=request.key,
            text=json.dumps(fields, ensure_ascii=False),
            finish_reason="stop",
            generator=record.get("generator") or f"recorded:{self.path.stem}",
        )

    def explain(self, request: Request) -> str:
        """Says whether there is no line, or one that could not be used."""
        if request.attempt > 0:
            return f"its line in {self.path} quotes no evidence that stands in the document"
        return f"{self.path} has no line for it ({self._lines.lines} lines)"

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


def open_verdicts(spec: str | None) -> Recordings:
    """Opens a judge's recordings: the journal folder of a judge, or a JSONL of verdicts.

    Args:
        spec: The folder or the file. Where there is none, that is an error once something is asked.

    Raises:
        InputError: For a journal without completions, or a malformed line.
    """
    if spec is None:
        return NoVerdicts()
    path = Path(resource_path(spec))
    if path.is_file():
        return RecordedVerdicts(path)
    return RecordedJournal(path) if path.exists() else NoVerdicts(path)


class NoVerdicts:
    """Stands for recordings that are not there: whose journal has every answer needs none."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path

    def find(self, request: Request) -> Completion | None:
        """Raises the error of what is missing."""
        raise self.error()

    def error(self) -> InputError:
        """Returns the error of what is missing."""
        return InputError(
            "the judge's engine 'recorded' needs --judge_recordings, a judge's journal folder or a JSONL "
            f"of verdicts{'' if self.path is None else f'; {self.path} does not exist'}."
        )

    def explain(self, request: Request) -> str:
        """Returns why there is no recording."""
        return "there are no recordings"

    def close(self) -> None:
        """Does nothing."""


def recorded_name(path: Path) -> str:
    """Returns what a request to recorded verdicts names as its LLM, other content under another name.

    A journal that is filled from a file must not pass for the work of the LLM that is asked next, nor
    for the file's lines once they have been mended.
    """
    with open(path, "rb") as file:
        return f"recorded:{path.stem}:{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
