"""Sees to it that an engine's processes do not outlive the one that started them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

# Reads until the other end of the pipe is gone, which the kernel sees to however that process ends.
# A process that ends well closes its engine first, and says so with a line.
_CODE = """
import os, signal, sys, time
for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(signal_number, signal.SIG_IGN)
if not sys.stdin.readline():
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for pid in map(int, sys.argv[1:]):
            try:
                os.kill(pid, signal_number)
            except ProcessLookupError:
                continue
        time.sleep(5)
"""


class Watchdog:
    """Ends processes when the process that made this object dies, also by SIGKILL.

    Without it vLLM's engine stays behind and keeps the GPU's memory, so that running the same
    command again finds no room.

    Args:
        pids: The processes.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _CODE, *map(str, pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def dismiss(self) -> None:
        """Ends the watch: the processes were ended properly. May be called twice."""
        if self._process.poll() is None:
            try:
                self._process.communicate(b"done\n", timeout=10)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
