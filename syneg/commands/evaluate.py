"""`syneg evaluate`: a model on a source, or on MTEB's tasks, by MTEB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from syneg.config import ConfigParser
from syneg.evaluation.arguments import EncodingArguments, EvaluationArguments, EvaluationSourceArguments


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Args:
        argv: The command line after ``evaluate``.

    Raises:
        InputError: Where an argument, the model or the source cannot be used.
    """
    parser = ConfigParser(
        [EvaluationArguments, EvaluationSourceArguments, EncodingArguments],
        prog="syneg evaluate",
        description="Evaluates a model on a source or on MTEB tasks and writes MTEB's result files.",
    )
    arguments, where, encoding = parser.parse(argv)

    from syneg.evaluation.evaluate import evaluate_tasks, named_tasks, source_task
    from syneg.evaluation.metrics import markdown_table
    from syneg.sources import source_of

    if arguments.tasks:
        tasks = named_tasks(arguments.tasks)
    elif where.source.startswith("mteb:"):
        tasks = named_tasks([where.source.removeprefix("mteb:")], where.split)
    else:
        source = source_of(where)
        for note in source.notes:
            print(note)
        tasks = [source_task(source, where.split)]
    results = evaluate_tasks(
        arguments.model,
        tasks,
        arguments.output,
        name=arguments.model_name,
        **encoding.options(),
        max_length=encoding.max_length,
        overwrite=arguments.overwrite,
    )
    table = Path(arguments.output) / "table.md"
    print(markdown_table([(f"{s.task}, {s.split}", s) for s in results], name="task", path=table), end="")
    for scores in results:
        print(f"{scores.path}\n{scores.queries_path}")
    print(table)
