"""`syneg compare`: arms and seeds by one YAML file to a table with a spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from syneg.config import ConfigParser
from syneg.evaluation.arguments import CompareArguments, EncodingArguments, EvaluationSourceArguments


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Args:
        argv: The command line after ``compare``.

    Raises:
        InputError: Where an argument, an arm, the rows or the source cannot be used.
    """
    parser = ConfigParser(
        [CompareArguments, EvaluationSourceArguments, EncodingArguments],
        prog="syneg compare",
        description="Trains and evaluates each arm with each seed and says which differ.",
    )
    arguments, where, encoding = parser.parse(argv)

    from syneg.evaluation.compare import compare
    from syneg.evaluation.summary import summary_table, work_notes

    comparison = compare(arguments, where, encoding)

    output = Path(arguments.output)
    table = summary_table(comparison)
    (output / "table.md").write_text(table, encoding="utf-8")
    print(table, end="")
    for note in work_notes(comparison):
        print(note)
    print(output / "table.md")
    print(f"For a report: syneg report --comparison {output}")
