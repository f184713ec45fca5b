"""The one exception that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what is wrong, where, and how to mend it. The command line prints it
    without a traceback and exits with code 2.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``" Did you mean 'x'?"`` for the known word nearest to `word`, or ``""``."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> InputError:
    """Returns the error for a name that is none of the known ones.

    Args:
        kind: What the word was taken for, as in "engine".
        word: The word as it was given.
        known: The words that would have been right.
    """
    known = sorted(known)
    return InputError(f"unknown {kind} {word!r}.{nearest(word, known)} Known: {', '.join(known)}.")


def one_line(error: InputError) -> str:
    """Returns an error's own line; from a data loader's worker it comes wrapped in a traceback."""
    return str(error).strip().splitlines()[-1].removeprefix("syneg.errors.InputError: ")
