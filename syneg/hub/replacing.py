"""Replacing a folder as a whole: locks, leftovers of killed builds, the move into place, full disks."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from syneg.errors import InputError

LOCK = ".lock"


def try_lock(folder: Path) -> IO[str] | None:
    """Locks a folder against removal by another build; None where another process holds it."""
    file = open(folder / LOCK, "w")  # noqa: SIM115 (held open for as long as the lock is)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def clear_leftovers(output: Path) -> None:
    """Removes what killed builds of this folder left, and finishes a replacement cut short."""
    for old in output.parent.glob(f".{glob.escape(output.name)}.replaced-*"):
        if output.exists():
            shutil.rmtree(old)
        else:
            old.rename(output)
    for partial in output.parent.glob(f".{glob.escape(output.name)}.partial-*"):
        lock = try_lock(partial)
        if lock is not None:
            shutil.rmtree(partial)
            lock.close()


def move_into_place(partial: Path, output: Path) -> None:
    """Puts a finished folder where `output` is or was; what was there is removed last."""
    replaced = output.with_name(f".{output.name}.replaced-{os.getpid()}")
    if output.exists():
        output.rename(replaced)
    partial.rename(output)
    sync(output.parent)
    if replaced.exists():
        shutil.rmtree(replaced)


def sync(path: Path) -> None:
    """Makes a file or folder durable, so that a rename never shows names without contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def disk_errors(output: Path) -> Iterator[None]:
    """Turns a full disk into an error that says so; nothing half-written stays."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise InputError(
            f"{output}: the disk is full ({error.strerror or error}). Nothing was replaced; "
            "make room or choose another --output, and run it again."
        ) from error
