"""`syneg train` and `recipes/train.py`: rows to a trained retriever."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from syneg.errors import InputError, one_line

_BASICS = (
    *("model", "dataset", "mixture", "max_length", "held_out", "lora_rank", "output_dir", "seed", "bf16"),
    *("num_train_epochs", "per_device_train_batch_size", "learning_rate", "temperature", "gradient_cache"),
)
"""What ``--help`` shows; ``--help all`` shows all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Trains a model as the command line says.

    Args:
        argv: The command line without the program's name; `sys.argv` where None.

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
        folder = run(*parser.parse(argv))
    except InputError as error:
        # Every process of a launch fails alike; one line is enough.
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    if int(os.environ.get("RANK", 0)) == 0:
        print(folder)
    return 0
