from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from syneg.llm.journal import Journal


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "kill -9"])
def test_stopped_it_keeps_what_came_and_leaves_nothing_behind(needs_vllm, tiny_llama, tmp_path, how):
    command = [sys.executable, "-m", "tests.llm.interrupt", str(tiny_llama), str(tmp_path / "j")]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while not (tmp_path / "j").is_dir() or len(Journal(tmp_path / "j")) < 20:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    if how == "Ctrl-C":
        # As a terminal does: to every process of the group, vLLM's too.
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and "interrupted" in output, output[-3000:]
    else:
        process.kill()
        process.wait()
    with pytest.raises(ProcessLookupError):
        # Nothing of the group is left behind.
        for _ in range(300):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    with Journal(tmp_path / "j") as journal:
        assert len(journal) >= 20 and journal.torn == 0
