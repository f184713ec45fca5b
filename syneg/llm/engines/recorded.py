"""The engine `recorded`: replays what was recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from syneg.errors import InputError
from syneg.llm.recordings import Recordings
from syneg.llm.requests import Completion, Request


class RecordedEngine:
    """Replays recordings.

    Args:
        recordings: A JSONL of recorded completions, or a journal.
        on_miss: "error", or "skip" to pass over what was not recorded.

    Attributes:
        skipped: Requests passed over.
    """

    def __init__(self, recordings: Recordings, on_miss: str = "error") -> None:
        self.recordings = recordings
        self.on_miss = on_miss
        self.skipped = 0

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yields the recorded completion of each request.

        Raises:
            InputError: For a request that was not recorded, unless misses are skipped.
        """
        for request in requests:
            completion = self.recordings.find(request)
            if completion is not None:
                yield completion
            elif self.on_miss == "skip":
                self.skipped += 1
            else:
                raise InputError(
                    f"not recorded: {request.name}; {self.recordings.explain(request)}. "
                    "Give --on_miss skip to pass over such requests."
                )

    def close(self) -> None:
        """Closes the recordings."""
        self.recordings.close()
