"""Several processes give the gradients that one process has on the union of their batches."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.stand_in import free_port

from .worker import SCENARIOS, eval_losses, train

pytestmark = pytest.mark.distributed
ROOT = Path(__file__).parent.parent.parent
AT_FOUR = ["direct", "cached", "cached_own", "uneven", "idle_cached", "accumulated_cached", "everything"]
RUNS = {2: list(SCENARIOS), 4: AT_FOUR}


def each(*without):
    """Parameters for every scenario that a number of processes runs."""
    runs = [(world, name) for world, names in RUNS.items() for name in names if name not in without]
    return pytest.mark.parametrize(("world", "name"), runs)


def launch(world, script, arguments, folder, **environment):
    """Runs a script as `world` processes over gloo; raises with what the first failing one said."""
    port = free_port()
    processes = []
    for rank in range(world):
        variables = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": world,
            "LOCAL_WORLD_SIZE": world,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "ACCELERATE_USE_CPU": "true",
            "HF_HUB_OFFLINE": 1,
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": 1,
            "PYTHONPATH": ROOT,
            **environment,
        }
        log = open(folder / f"log{rank}", "w+")  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            env=os.environ | {k: str(v) for k, v in variables.items()},
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        processes.append((process, log))
    try:
        codes = [process.wait(timeout=300) for process, _ in processes]
    finally:
        for process, log in processes:
            process.kill()
            log.close()
    for rank, code in enumerate(codes):
        assert code == 0, (folder / f"log{rank}").read_text()[-4000:]


@pytest.fixture(scope="module")
def single(tiny_model_path, tmp_path_factory):
    """What one process gives, by scenario."""
    folder = tmp_path_factory.mktemp("single")
    runs = {name: train(name, tiny_model_path, folder, 1) for name in SCENARIOS}
    evaluated = eval_losses(runs["direct"][0])
    runs["sharded"][0].save_model(str(folder / "sharded"))
    return {name: run[1:] for name, run in runs.items()} | {"folder": folder, "eval": evaluated}


@pytest.fixture(scope="module")
def several(tiny_model_path, tmp_path_factory):
    """Gives what so many processes give, by scenario; each number of processes is launched once."""

    @cache
    def run(world):
        folder = tmp_path_factory.mktemp(f"several{world}")
        names = RUNS[world]
        script = ROOT / "tests" / "training" / "worker.py"
        launch(world, script, [folder, json.dumps(names), world, tiny_model_path], folder)
        return {name: torch.load(folder / f"{name}.pt") for name in [*names, "eval"]} | {"folder": folder}

    return run


@each()
def test_gradients_are_those_of_one_process(single, several, world, name):
    losses, gradients, _ = single[name]
    found_losses, found, _, _ = several(world)[name]
    assert len(gradients) == len(found) > 1
    assert found_losses == pytest.approx(losses, abs=1e-6)
    for step, (expected, step_gradients) in enumerate(zip(gradients, found, strict=True)):
        assert expected.keys() == step_gradients.keys()
        for key, gradient in expected.items():
            difference = (step_gradients[key] - gradient).abs().max()
            assert difference <= 1e-9 * max(1.0, gradient.abs().max()), (step, key, float(difference))


def test_fsdp_saves_the_weights_of_one_process(single, several):
    """FSDP2, over two processes on a CPU."""
    expected, found = (
        SentenceTransformer(str(part["folder"] / "sharded"), device="cpu").state_dict()
        for part in (single, several(2))
    )
    assert expected.keys() == found.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


@each("sharded")  # FSDP exchanges otherwise.
def test_every_gradient_is_exchanged_once_a_step(several, world, name):
    _, _, exchanged, trainable = several(world)[name]
    assert all(count >= trainable for count in exchanged)
    # The model's unused parameters travel too; none travels twice.
    assert all(count < 2 * trainable for count in exchanged)


@pytest.mark.parametrize("world", RUNS)
def test_eval_loss_is_that_of_one_process_and_of_a_data_set(single, several, world):
    assert single["eval"] == pytest.approx([single["eval"][0]] * 3, abs=1e-9)
    assert several(world)["eval"] == pytest.approx(single["eval"], abs=1e-6)


def test_clipping_was_at_work(single):
    _, gradients, _ = single["clipped"]
    norms = [torch.cat([g.flatten() for g in step.values()]).norm() for step in gradients]
    assert all(norm == pytest.approx(0.05, rel=1e-3) for norm in norms)
