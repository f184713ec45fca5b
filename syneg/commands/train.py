"""`syneg train` and `recipes/train.py`: rows to a trained retriever."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from syneg.errors import InputError, one_line


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
        parser = ConfigParser((TrainArguments, GuardedArguments), prog="syneg train")  # type: ignore[arg-type]
        folder = run(*parser.parse(argv))
    except InputError as error:
        # Every process of a launch fails alike; one line is enough.
        if int(os.environ.get("RANK", 0)) == 0:
            print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    if int(os.environ.get("RANK", 0)) == 0:
        print(folder)
    return 0
