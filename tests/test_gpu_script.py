"""benchmarks/gpu.sh: every part of it at toy size on a CPU, what it says and how it exits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from syneg.training.texts import Padder
from tests.llm.conftest import needs_vllm  # noqa: F401

ROOT = Path(__file__).parent.parent
MAY_BE_MISSING = {"qlora": "bitsandbytes is not installed", "deepspeed": "deepspeed is not installed"}


def run_script(logs: Path, *arguments: str) -> dict[str, tuple[str, str]]:
    """Returns each part's result, and what the table says of it."""
    command = [
        str(ROOT / "benchmarks" / "gpu.sh"),
        "--toy",
        "--minutes",
        "9",
        "--logs",
        str(logs),
        *arguments,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHON": sys.executable}, cwd=logs
    )
    lines = [line.split(maxsplit=3) for line in done.stdout.splitlines() if line.split()[0] in gpu.PARTS]
    told = "".join(path.read_text(errors="replace")[-3000:] for path in logs.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + told
    return {name: (result, said) for name, result, _, said in lines}


def test_every_part_agrees_at_toy_size(tmp_path: Path) -> None:
    found = run_script(tmp_path, "--without", "vllm")
    assert list(found) == [name for name in gpu.PARTS if name != "vllm"]
    for name, (result, said) in found.items():
        assert result == "agrees" or (result == "skipped" and said == MAY_BE_MISSING.get(name)), (name, said)


@pytest.mark.vllm
@pytest.mark.usefixtures("needs_vllm")
def test_the_part_of_vllm_agrees_at_toy_size(tmp_path: Path) -> None:
    found = run_script(tmp_path, "--only", "vllm")
    assert found["vllm"][0] == "agrees"
    assert "requests/s" in found["vllm"][1]


# How it tells a mistake ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> gpu.Setting:
    """A toy setting with its reference."""
    made = gpu.toy(gpu.Setting("cpu", tmp_path_factory.mktemp("gpu")))
    gpu.reference(made)
    return made


def without_mask(features: dict[str, Any]) -> dict[str, Any]:
    return features | {"attention_mask": torch.ones_like(features["attention_mask"])}


def shifted(features: dict[str, Any]) -> dict[str, Any]:
    ids = features["input_ids"]
    return features | {"position_ids": torch.arange(1, ids.shape[1] + 1).expand_as(ids)}


@pytest.mark.parametrize("mistake", [without_mask, shifted])
def test_a_wrong_chunk_differs(
    setting: gpu.Setting, mistake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Padder.features
    options = gpu.options_of(setting, "cpu", "fp32")
    monkeypatch.setattr(Padder, "features", lambda self, *args: mistake(right(self, *args)))
    assert not gpu.compared(gpu.trained(options), gpu.of_reference(setting), "bf16").agrees


def test_other_training_differs(setting: gpu.Setting) -> None:
    expected = gpu.of_reference(setting)
    untrained = gpu.trained(gpu.options_of(setting, "cpu", "fp32", learning_rate=0.0))
    assert not gpu.compared(untrained, expected, "bf16").agrees
    fewer = gpu.trained(gpu.options_of(replace(setting, negatives=1), "cpu", "fp32"))
    assert not gpu.compared(fewer, expected, "bf16").agrees
    again = gpu.trained(gpu.options_of(setting, "cpu", "fp32"))
    assert gpu.compared(again, expected, "fp32").agrees


# How it exits -------------------------------------------------------------------------------------------


def agrees(setting: gpu.Setting) -> gpu.Outcome:
    return gpu.Outcome(True, "1 s", "0 off")


def differs(setting: gpu.Setting) -> gpu.Outcome:
    return gpu.Outcome(False, "1 s", "1 off")


def skips(setting: gpu.Setting) -> gpu.Outcome:
    raise gpu.Skipped("a library is not installed")


def breaks(setting: gpu.Setting) -> gpu.Outcome:
    raise ValueError("of no use")


def ends(setting: gpu.Setting) -> gpu.Outcome:
    os._exit(7)


def sleeps(setting: gpu.Setting) -> gpu.Outcome:
    time.sleep(600)
    raise AssertionError


@pytest.mark.parametrize(
    ("parts", "status", "said"),
    [
        ([agrees, skips], 0, "1 agrees, 0 differs, 0 failed, 1 skipped"),
        ([agrees, differs], 1, "1 agrees, 1 differs"),
        ([agrees, breaks], 1, "ValueError: of no use; see "),
        ([ends], 1, "its process ended with 7"),
        ([sleeps, agrees], 1, "more than 5 s"),
        ([skips], 2, "a library is not installed"),
    ],
)
def test_exit_status(
    parts: list[Callable[..., Any]],
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {part.__name__: part for part in parts}
    monkeypatch.setattr(gpu, "PARTS", names)
    monkeypatch.setattr(gpu, "reference", agrees)

    def run(name: str, part: Callable[..., Any], *arguments: Any) -> Any:
        return gpu.apart(part, *arguments, seconds=5, log=tmp_path / "log", fork=True)

    assert gpu.report(run, gpu.Setting("cpu", tmp_path), list(names)) == status
    assert said in capsys.readouterr().out


def test_without_a_gpu_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert gpu.main() == 2
