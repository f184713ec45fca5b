"""Checks what `python -m build` made: `python tests/installed.py dist`, as `make package` does.

The wheel is installed into a new environment that sees this one's libraries (of which torch alone takes
gigabytes) but not this repository, and works from a folder of its own. The sdist holds what the wheel does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a wheel must hold beside modules.
DATA = (
    "syneg/demo/pydocs-train.jsonl",
    "syneg/hub/dataset_card.md.j2",
    "syneg/inspect/page.css.j2",
    "syneg/py.typed",
    "dataset_builders/scifact.yaml",
    "syneg/recipes/backbones/minilm.yaml",
    "syneg/recipes/compare/scifact-verdicts.jsonl",
    "syneg/recipes/accelerate_configs/cpu.yaml",
)


def main(folder: Path) -> None:
    """Checks a folder's one wheel and one sdist; raises what does not hold."""
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert all(name in names for name in DATA), sorted(set(DATA) - names)
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in names)
    with tarfile.open(sdist) as file:
        inner = {name.partition("/")[2] for name in file.getnames()}
    assert {name for name in names if not name.startswith(("syneg-", "syneg/recipes/"))} <= inner
    with tempfile.TemporaryDirectory() as place:
        _use(wheel, Path(place))
    print(f"{wheel.name} and {sdist.name}: complete, and the wheel works outside of the repository")


def _use(wheel: Path, place: Path) -> None:
    """Installs the wheel into a new environment, and mines and trains with it outside of the repository."""
    venv.create(place / "venv", with_pip=True)
    python = str(place / "venv" / "bin" / "python")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env = {**clean, "HF_HUB_OFFLINE": "1", "SYNEG_CACHE": str(place / "cache")}
    _run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel.resolve())],
        place,
        env,
    )
    # The libraries of this environment, without the .pth files that put this repository on the path.
    paths = "import site, sysconfig; print(sysconfig.get_paths()['purelib'])"
    inside = _run([python, "-c", paths], place, env).strip()
    Path(inside, "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    where = _run([python, "-c", "import syneg; print(syneg.__file__, syneg.__version__)"], place, env)
    assert where.startswith(inside), f"{where} is not of the new environment {inside}"
    assert where.split()[1] == wheel.name.split("-")[1], where
    syneg = str(place / "venv" / "bin" / "syneg")
    assert "usage: syneg COMMAND" in _run([syneg, "--help"], place, env)
    answers = [
        f"Note {i} says that part {i * 7} is repaired at stage {i % 5} of plan {i % 3}." for i in range(30)
    ]
    lines = [f"what does note {i} say of part {i * 7}?,{answer}" for i, answer in enumerate(answers)]
    (place / "pairs.csv").write_text("\n".join(["question,answer", *lines]) + "\n")
    words = "--source pairs.csv --test_share 0.3 --mined_per_miner 2 --output out/mined --miners bm25,random"
    _run([syneg, "mine", *words.split()], place, env)
    assert (place / "out" / "mined" / "README.md").is_file()
    listed = _run([syneg, "build", "--config", "scifat", "--output", "out/b"], place, env, code=2)
    assert "scifact" in listed, listed


def _run(words: list[str], place: Path, env: dict[str, str], code: int = 0) -> str:
    done = subprocess.run(words, cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == code, (
        f"{words}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout + (done.stderr if code else "")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
