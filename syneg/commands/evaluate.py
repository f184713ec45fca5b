"""`syneg evaluate`: a model on a source, or on MTEB's tasks, by MTEB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from syneg.config import ConfigParser
from syneg.evaluation.arguments import EncodingArguments, EvaluationArguments, EvaluationSourceArguments

if TYPE_CHECKING:
    from syneg.evaluation.metrics import Scores
    from syneg.sources import Source

TRAIN = "train"


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

    from syneg.encoders import encoder_path
    from syneg.evaluation.before_after import (
        before_after_table,
        find_queries,
        is_results_folder,
        only_other,
    )
    from syneg.evaluation.evaluate import evaluate_tasks, named_tasks, queries_name, source_task
    from syneg.evaluation.metrics import markdown_table, mean_scores, read_queries, worse_line
    from syneg.sources import source_of

    source = None
    if arguments.tasks:
        tasks = named_tasks(arguments.tasks)
    elif where.source.startswith("mteb:"):
        tasks = named_tasks([where.source.removeprefix("mteb:")], where.split)
    else:
        source = source_of(where)
        for note in source.notes:
            print(note)
        tasks = [source_task(source, where.split)]

    def run(model: str, name: str | None) -> list[Scores]:
        return evaluate_tasks(
            model,
            tasks,
            arguments.output,
            name=name,
            **encoding.options(),
            max_length=encoding.max_length,
            overwrite=arguments.overwrite,
        )

    # What is wrong with the baseline is said before anything is encoded.
    earlier: dict[str, list[Path]] = {}
    if arguments.baseline and is_results_folder(arguments.baseline):
        names = [queries_name(task.metadata.name, split) for task in tasks for split in task.eval_splits]
        earlier = {name: find_queries(arguments.baseline, name) for name in names}
    elif arguments.baseline:
        encoder_path(arguments.baseline)
    results = run(arguments.model, arguments.model_name)
    output = Path(arguments.output)
    table = output / "table.md"
    rows = [(f"{s.task}, {s.split}", s) for s in results]
    print(markdown_table(rows, name="task", path=table), end="")
    for scores in results:
        print(f"{scores.path}\n{scores.queries_path}")
    print(table)
    if source is None and where.source.startswith("mteb:") and not arguments.tasks:
        source = source_of(where)
    if source is not None:
        _print_halves(source, results[0], output / "overlap.md")
    if arguments.baseline:
        if not earlier:
            baselines = run(arguments.baseline, None)
            earlier = {scores.queries_path.name: [scores.queries_path] for scores in baselines}
        for scores in results:
            before = read_queries(only_other(earlier[scores.queries_path.name], scores.queries_path))
            after = read_queries(scores.queries_path)
            print(f"\n{scores.task}, {scores.split}, against {arguments.baseline}")
            print(before_after_table(before, after), end="")
            worse = worse_line(mean_scores(before), mean_scores(after))
            if worse:
                print(worse)


def _print_halves(source: Source, scores: Scores, path: Path) -> None:
    """Prints and writes the metrics of the queries that a model may know from training, and of the others."""
    from syneg.evaluation.metrics import markdown_table, mean_scores, read_queries
    from syneg.sources.overlap import shared_judgements

    if TRAIN not in source.qrels or scores.split == TRAIN or scores.split not in source.qrels:
        return
    overlap = shared_judgements(source, scores.split, TRAIN)
    if not overlap.shared:
        return
    queries = read_queries(scores.queries_path)
    rows = {
        label: mean_scores(query for query in queries if query.query_id in part)
        for label, part in overlap.halves().items()
    }
    print(f"\n{overlap}")
    print(markdown_table(rows, name=f"queries of {scores.task}", path=path), end="")
    print(path)
