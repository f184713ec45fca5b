"""Asking: from documents to a source whose queries an LLM wrote, in BEIR's layout."""

from __future__ import annotations

from syneg.asking.folder import AskFolderArguments
from syneg.asking.run import Asking, NothingWritten, ask_queries

__all__ = ["AskFolderArguments", "Asking", "NothingWritten", "ask_queries"]
