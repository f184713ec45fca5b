"""The builder and the subcommands, on a small source with recorded completions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_dataset

from dataset_builders.hardneg import HERE, HardNegatives, argument_parser
from syneg import load_source
from syneg.cli import main
from syneg.errors import InputError
from syneg.rows import DROPPED_FEATURES, FEATURES

SHIPPED = ["fiqa", "hotpotqa", "msmarco", "pydocs", "quora", "scifact"]


def record(pair: Any, **fields: Any) -> dict[str, Any]:
    text = (
        f"Elsewhere the subject of {pair.positive_id} rests, as note {pair.query_id} has it in other words."
    )
    return {
        "query_id": pair.query_id,
        "positive_id": pair.positive_id,
        "query": pair.query,
        "domain": "Physics",
        "difficulty": "advanced",
        "length": "about the same length as the positive",
        "reasoning": "It keeps the subject and leaves out what was asked.",
        "text": text,
        **fields,
    }


@pytest.fixture
def recordings(beir: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recordings.jsonl"
    records = [record(pair) for pair in load_source(beir).pairs("train")]
    records[2]["text"] = list(load_source(beir).pairs("train"))[2].positive  # the checks drop this one
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def options(beir: Path, recordings: Path, encoder: str, output: Path) -> list[str]:
    return [
        *("--name", "tiny", "--source", str(beir), "--encoder", encoder, "--engine", "recorded"),
        *("--recordings", str(recordings), "--mined_per_miner", "3", "--relative_margin", '{"dense": null}'),
        # The encoder is a random one, whose scores say nothing.
        *("--gates", "checks", "--output", str(output)),
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_build_writes_a_folder_that_load_dataset_reads(
    beir: Path, recordings: Path, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["build", *options(beir, recordings, encoder, output)]) == 0
    rows = load_dataset(str(output), split="train")
    assert rows.features == FEATURES
    assert len(rows) == 11 == len(load_source(beir).pairs("train"))
    sources = {negative["source"] for row in rows for negative in row["negatives"]}
    assert sources == {"synthetic", "bm25", "dense"}
    first = rows[0]["negatives"][0]
    assert first["source"] == "synthetic" and first["difficulty"] == "advanced" and first["reasoning"]
    for row in rows:
        assert row["positive"] not in [negative["text"] for negative in row["negatives"]]

    dropped = load_dataset(str(output), "dropped", split="train")
    assert dropped.features == DROPPED_FEATURES
    assert [(d["gate"], d["negative"]["source"]) for d in dropped] == [("checks", "synthetic")]
    triplets = load_dataset(str(output), "triplet", split="train")
    assert triplets.column_names == ["anchor", "positive", *(f"negative_{i}" for i in range(1, 5))]
    assert "tiny of" not in capsys.readouterr().err
    card = (output / "README.md").read_text()
    assert card.startswith("---\n") and "synthetic" in card


def test_the_same_build_again_is_the_same_and_asks_for_nothing(
    beir: Path, recordings: Path, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["build", *options(beir, recordings, encoder, output)]
    assert main(words) == 0
    before = files(output)
    assert main([*words, "--overwrite"]) == 0
    assert files(output) == before
    # Another threshold of a gate is another data set, made from the same completions.
    capsys.readouterr()
    assert main([*words, "--overwrite", "--max_length_ratio", "9"]) == 0
    assert "0 new" in capsys.readouterr().out
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_the_parts_of_the_builder(beir: Path, recordings: Path, encoder: str, tmp_path: Path) -> None:
    words = options(beir, recordings, encoder, tmp_path / "out")[:-2]
    cache = str(tmp_path / "cache")
    parts = {
        part: HardNegatives.from_arguments(words, cache, part) for part in ("dropped", "triplet", "default")
    }
    for builder in parts.values():
        builder.download_and_prepare()
    assert len(parts["default"].as_dataset(split="train")) == 11
    assert len(parts["dropped"].as_dataset(split="train")) == 1
    assert parts["triplet"].as_dataset(split="train").column_names[0] == "anchor"
    assert parts["default"].report()["train"]["rows"]["rows"] == 11
    fingerprints = {
        HardNegatives.from_arguments([*words, *more], cache).config_id
        for more in ([], ["--seed", "1"], ["--max_length_ratio", "9"], ["--slots", "2"])
    }
    assert len(fingerprints) == 4


def test_mirrored_rows_stand_behind_their_own(beir: Path, encoder: str, tmp_path: Path) -> None:
    pairs = list(load_source(beir).pairs("train"))
    path = tmp_path / "mirrored.jsonl"
    records = [record(pair, mirror_query=f"What rests as note {pair.query_id} has it?") for pair in pairs]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    output = tmp_path / "out"
    assert main(["build", *options(beir, path, encoder, output), "--mirror", "true"]) == 0
    rows = list(load_dataset(str(output), split="train"))
    assert [row["origin"] for row in rows[:4]] == ["source", "mirror", "source", "mirror"]
    assert rows[1]["query"] == "What rests as note q0 has it?"
    assert rows[1]["positive"] == rows[0]["negatives"][0]["text"]
    assert [n["text"] for n in rows[1]["negatives"]] == [rows[0]["positive"]]
    # The recordings hold these queries also where nobody asks for mirrored rows.
    plain = tmp_path / "plain"
    assert main(["build", *options(beir, path, encoder, plain)]) == 0
    assert {row["origin"] for row in load_dataset(str(plain), split="train")} == {"source"}


def test_mine_generate_and_gate_one_after_the_other(
    beir: Path, recordings: Path, encoder: str, tmp_path: Path
) -> None:
    mined, generated, gated = (tmp_path / name for name in ("mined", "generated", "gated"))
    margin = ["--relative_margin", '{"dense": null}']
    mine = ["mine", "--source", str(beir), "--miners", "bm25,dense", "--encoder", encoder, *margin]
    assert main([*mine, "--output", str(mined)]) == 0
    replay = ["--engine", "recorded", "--recordings", str(recordings)]
    assert main(["generate", "--dataset", str(mined), *replay, "--output", str(generated)]) == 0
    assert main(["gate", "--dataset", str(generated), "--output", str(gated)]) == 0
    rows = list(load_dataset(str(gated), split="train"))
    assert {n["source"] for row in rows for n in row["negatives"]} == {"synthetic", "bm25", "dense"}
    assert sum(n["source"] == "synthetic" for row in rows for n in row["negatives"]) == len(rows) - 1
    assert len(load_dataset(str(gated), "dropped", split="train")) == 1


def test_a_dry_run_asks_for_nothing(
    beir: Path, recordings: Path, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options(beir, recordings, encoder, tmp_path / "out")
    words[words.index("recorded")] = "vllm"
    words += ["--dry_run", "--llm", str(tmp_path / "no-model"), "--tokens_per_second", "100"]
    assert main(["build", *words]) == 0
    assert "11 requests to make for 11 pairs" in capsys.readouterr().out
    generate = ["generate", "--source", str(beir), "--output", str(tmp_path / "out"), "--dry_run"]
    assert main(generate) == 0
    assert "11 requests to make" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_broken_completions_are_dropped_with_their_reason(
    beir: Path, recordings: Path, encoder: str, tmp_path: Path
) -> None:
    """What came back is no JSON, cut off, or of another shape: kept with its text, and counted."""
    from syneg.building import StageArguments
    from syneg.llm.requests import Completion
    from syneg.writing.negatives import negatives_of

    texts = ["no JSON at all", '{"reasoning": "it was c', '{"other": 1}']

    class Broken:
        name = "broken"

        def generate(self, requests: Any) -> Any:
            for i, request in enumerate(requests):
                finish = "length" if i % 3 == 1 else "stop"
                yield Completion(request.key, texts[i % 3], finish, 5, 5, 0, "broken")

    journal = tmp_path / "journal"
    args = StageArguments(source=str(beir), engine="vllm", max_attempts=1)
    report = negatives_of(
        load_source(beir).pairs("train"), args, journal, 0, engine=Broken(), progress=False
    ).run()
    assert sum(report.to_dict()["failures"].values()) == 11
    # The journal answers; the engine, which is not to be had here, is not even started.
    output = tmp_path / "out"
    words = [*options(beir, recordings, encoder, output)]
    words[words.index("recorded")] = "vllm"
    words += ["--max_attempts", "1", "--journal", str(journal)]
    assert main(["build", *words]) == 0
    dropped = list(load_dataset(str(output), "dropped", split="train"))
    assert len(dropped) == 11 and {d["gate"] for d in dropped} == {"parse"}
    assert {d["negative"]["text"] for d in dropped} == set(texts)


def test_a_pair_without_negatives(
    beir: Path, encoder: str, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", *options(beir, recordings, encoder, tmp_path / "out")]
    words += ["--miners", "dense", "--max_score", '{"dense": -2}', "--max_length_ratio", "0.01"]
    words += ["--min_length_ratio", "0.001"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "has no negative left" in error and "--pairs_without_negatives" in error
    assert main([*words, "--pairs_without_negatives", "keep"]) == 0
    rows = load_dataset(str(tmp_path / "out"), split="train")
    assert len(rows) == 11 and all(not row["negatives"] for row in rows)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_yaml_files_build_from_a_small_stand_in(
    name: str, beir: Path, recordings: Path, encoder: str, tmp_path: Path
) -> None:
    (beir / "qrels" / "dev.tsv").write_text((beir / "qrels" / "train.tsv").read_text())
    overrides = {"source": str(beir), "encoder": encoder, "engine": "recorded", "on_miss": "skip"}
    builder = HardNegatives.from_yaml(
        name,
        str(tmp_path),
        recordings=str(recordings),
        relative_margin={"dense": None},
        pairs_without_negatives="drop",
        **overrides,
    )
    builder.download_and_prepare()
    assert builder.config.name == name
    (rows,) = builder.as_dataset().values()
    assert {n["source"] for row in rows for n in row["negatives"]} >= {"synthetic", "bm25"}


def test_every_shipped_file_is_tested_and_parsed() -> None:
    assert sorted(path.stem for path in HERE.glob("*.yaml")) == SHIPPED
    for path in HERE.glob("*.yaml"):
        stages = argument_parser().parse(["--config", str(path)])
        assert stages[0].name == path.stem == yaml.safe_load(path.read_text())["name"]
        assert stages[0].licence


def test_recorded_attributes_are_among_those_of_the_yaml() -> None:
    from syneg.sources.pydocs import RECORDINGS

    attributes = yaml.safe_load((HERE / "pydocs.yaml").read_text())["attributes"]
    for line in RECORDINGS.read_text(encoding="utf-8").splitlines():
        recorded = json.loads(line)
        assert all(recorded[name] in values for name, values in attributes.items())


def test_names_that_are_not_there() -> None:
    with pytest.raises(InputError, match=r"Did you mean 'scifact'\?"):
        HardNegatives.from_yaml("scifcat")
    with pytest.raises(InputError, match="unknown part 'droped'"):
        HardNegatives.from_yaml("scifact", part="droped")
