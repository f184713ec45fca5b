"""Sources: corpus, queries and qrels, read from whatever people have, with what was left out told."""

from __future__ import annotations

from syneg.sources.loading import load_source, source_of
from syneg.sources.source import (
    CORPUS_FEATURES,
    QUERY_FEATURES,
    Pair,
    Pairs,
    Source,
    SourceArguments,
    document_text,
)

__all__ = [
    "CORPUS_FEATURES",
    "QUERY_FEATURES",
    "Pair",
    "Pairs",
    "Source",
    "SourceArguments",
    "document_text",
    "load_source",
    "source_of",
]
