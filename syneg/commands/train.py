"""`syneg train` and `recipes/train.py`: rows to a trained retriever."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from syneg.commands.endings import next_steps
from syneg.errors import InputError, one_line

if TYPE_CHECKING:
    from syneg.training.run import TrainArguments, Trained

_BASICS = (
    *("model", "dataset", "mixture", "max_length", "held_out", "lora_rank", "output_dir", "seed", "bf16"),
    *("num_train_epochs", "per_device_train_batch_size", "learning_rate", "temperature", "gradient_cache"),
)
"""What ``--help`` shows; ``--help all`` shows all."""


def main(argv: Sequence[str] | None = None, says_next: bool = True) -> int:
    """Trains a model as the command line says.

    Args:
        argv: The command line without the program's name; `sys.argv` where None.
        says_next: Whether it ends with what to run next.

    Returns:
        0; or 2 after bad input, which is told in one line on stderr.
    """
    from syneg.config import ConfigParser
    from syneg.training.arguments import GuardedArguments
    from syneg.training.run import TrainArguments, run

    try:
        parser = ConfigParser(
            (TrainArguments, GuardedArguments),  # type: ignore[arg-type]
            basics=_BASICS,
            prog="syneg train",
            description="Trains a retriever on rows with negatives, as in --config scifact/minilm.",
        )
        script, training = parser.parse(argv)
        trained = run(script, training)
    except InputError as error:
        # Every process of a launch fails alike; one line is enough.
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    if int(os.environ.get("RANK", 0)) == 0:
        print("\n".join(_outcome(trained)))
        if says_next:
            print("\n".join(_next(script, trained)))
    return 0


def _outcome(trained: Trained) -> list[str]:
    """Returns what came of the training: a line on the model, and one for each thing that was measured on."""
    rows = "" if trained.rows is None else f"{trained.rows:,} rows, "
    first, last = trained.losses[0], trained.losses[-1]
    loss = f"loss {last.loss:.4f}"
    if len(trained.losses) > 1:
        loss = f"loss {first.loss:.4f} at step {first.step:,}, {last.loss:.4f} at step {last.step:,}"
    kept = "" if trained.best_step is None else f"; the model is that of step {trained.best_step:,}, the best"
    epochs = f"{trained.epochs:.4g} epoch{'' if trained.epochs == 1 else 's'}"
    lines = [f"{trained.folder}: trained on {rows}{trained.steps:,} steps, {epochs}; {loss}{kept}"]
    for name, after in trained.after.items():
        before = trained.before[name]
        told = ", ".join(f"{metric} {before[metric]:.4f} -> {after[metric]:.4f}" for metric in after)
        lines.append(f"{name.replace('_', ' ')}, before -> after: {told}")
    return lines


def _next(script: TrainArguments, trained: Trained) -> list[str]:
    """Returns what to run next: the evaluation before and after, and a look at what would be published."""
    results = f"{trained.folder}-results"
    where = ["--source", script.held_out or "SOURCE"]
    if script.held_out and script.held_out_split != "test":
        where += ["--split", script.held_out_split]
    if script.max_length is not None:
        where += ["--max_length", str(script.max_length)]
    evaluate = ("syneg", "evaluate", "--model", str(trained.folder), "--baseline", script.model, *where)
    push = ("syneg", "push", "--folder", str(trained.folder), "--model_results", results)
    return next_steps(
        (*evaluate, "--output", results),
        (*push, "--repo_id", f"YOU/{trained.folder.absolute().name}", "--dry_run"),
        one_of=False,
    )
