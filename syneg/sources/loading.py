"""Loading a source from whatever names it, and the checks that hold for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from syneg.errors import InputError
from syneg.sources.readers import BEIR_LAYOUT, Judgement, RawSource, read_beir, read_hub, read_mteb
from syneg.sources.source import Qrels, Source


def load_source(spec: str | Path, unknown_documents: str = "error") -> Source:
    """Loads a source.

    Args:
        spec: The path of a BEIR folder; ``mteb:TaskName``; ``pydocs``, the documentation of the
            installed Python packages; or the Hub id of a data set in BEIR's or MTEB's layout
            (configurations ``corpus``, ``queries`` and the qrels).
        unknown_documents: "error", or "skip" to leave out and count judgements that name a
            document or query the source lacks.

    Returns:
        The source, with every split that has qrels.

    Raises:
        InputError: Where something is missing, empty or malformed; says what, where and the remedy.
    """
    text = str(spec)
    if text.startswith("mteb:"):
        raw = read_mteb(text.removeprefix("mteb:"))
    elif Path(text).is_dir():
        raw = read_beir(Path(text))
    elif text == "pydocs":
        from syneg.sources.pydocs import pydocs_source

        return pydocs_source()
    elif Path(text).is_absolute() or text.startswith(".") or text.count("/") != 1:
        raise InputError(f"source {text!r}: no such folder. {BEIR_LAYOUT}")
    else:
        raw = read_hub(text)
    return _checked(raw, skip=unknown_documents == "skip")


def _checked(raw: RawSource, skip: bool) -> Source:
    source = Source(raw.name, raw.corpus, raw.queries, {})
    for kind, ids in (("corpus", source.document_ids), ("queries", source.query_ids)):
        if len(ids) == 0:
            raise InputError(f"{raw.name}: the {kind} is empty. {BEIR_LAYOUT}")
        if not ids.is_unique:
            twice = ids[ids.duplicated()][0]
            raise InputError(f"{raw.name}: id {twice!r} stands twice in the {kind}; ids must be unique.")
    if not raw.judgements:
        raise InputError(f"{raw.name}: there are no qrels, so no split. {BEIR_LAYOUT}")
    for split, judgements in raw.judgements.items():
        source.qrels[split], source.skipped[split] = _checked_qrels(source, judgements, skip)
    return source


def _checked_qrels(source: Source, judgements: Iterable[Judgement], skip: bool) -> tuple[Qrels, int]:
    rows = list(judgements)
    known_queries = source.query_ids.get_indexer([row.query_id for row in rows]) >= 0
    known_documents = source.document_ids.get_indexer([row.document_id for row in rows]) >= 0
    unknown = ~(known_queries & known_documents)
    if unknown.any() and not skip:
        first = int(unknown.argmax())
        row = rows[first]
        kind, name = ("document", row.document_id) if not known_documents[first] else ("query", row.query_id)
        raise InputError(
            f"{row.where}: {kind} {name!r} is not in the {'corpus' if kind == 'document' else 'queries'} "
            f"({int(unknown.sum())} such judgements). Mend the file, or leave them out with "
            "--unknown_documents skip."
        )
    qrels: Qrels = {}
    for row, is_unknown in zip(rows, unknown, strict=True):
        if not is_unknown:
            qrels.setdefault(row.query_id, {})[row.document_id] = row.relevance
    return qrels, int(unknown.sum())
