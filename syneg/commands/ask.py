"""`syneg ask`: documents to a source whose queries an LLM wrote."""

from __future__ import annotations

from collections.abc import Sequence

from syneg.config import ConfigParser
from syneg.sources import SourceArguments
from syneg.writing.query_arguments import QueryArguments

ASK_BASICS = (
    *("source", "engine", "llm", "base_urls", "recordings", "examples", "documents", "queries_per_document"),
    *(
        "query_kind",
        "document_kind",
        "gates",
        "encoder",
        "with_pairs",
        "test_documents",
        "journal",
        "dry_run",
    ),
    *("seed", "overwrite"),
)
"""What ``--help`` shows; ``--help all`` shows all."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument, the source, a gate or the engine cannot be used.
    """
    from syneg.asking import AskFolderArguments, ask_queries
    from syneg.gating.queries import QueryGateArguments

    parser = ConfigParser(
        [AskFolderArguments, SourceArguments, QueryArguments, QueryGateArguments],
        basics=ASK_BASICS,
        prog="syneg ask",
        description="Asks an LLM for queries that documents answer, gates them, and writes a source in "
        "BEIR's layout that every other command takes. Run it again to go on where it stopped.",
    )
    output, where, args, gates = parser.parse(argv)
    print("\n".join(ask_queries(where, args, gates, output)))
