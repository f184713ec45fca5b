"""What can fail fails before anything is encoded or mined; a dry run tells it, and what all stages take."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from syneg.cli import main
from syneg.errors import InputError
from syneg.llm.arguments import LLMArguments
from syneg.llm.engines import check_ready
from syneg.mining.mine import _Mining
from syneg.sources import load_source
from tests.commands.test_cli import fails
from tests.test_build import options, record, recordings  # noqa: F401


@pytest.fixture
def no_mining(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Any) -> Any:
        raise AssertionError("something was mined before all was checked")

    monkeypatch.setattr(_Mining, "run", run)


@pytest.mark.usefixtures("no_mining")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engine", "openai"], "needs --base_urls"),
        (
            ["--engine", "openai", "--base_urls", "localhost:8000"],
            "--base_urls localhost:8000: is no address",
        ),
        (
            ["--engine", "openai", "--base_urls", "http://x/v1", "--engine_options", "timeot=3"],
            "not 'timeot'",
        ),
        (["--engine", "recorded", "--recordings", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--engine", "recorded", "--recordings", "{torn}"], "line 2"),
        (["--encoder", "me/no-encoder"], "me/no-encoder"),
        (["--encoder", "{empty}"], "neither config.json nor modules.json"),
        (["--mining_device", "cuda:99"], "--mining_device cuda:99"),
        (["--mining_device", "gpu"], "--mining_device gpu"),
        (["--bm25_language", "klingon"], "klingon"),
        (["--query_embeddings", "q.npy", "--corpus_embeddings", "c.npy"], "q.npy: no such file"),
        (["--gates", "teacher", "--teacher", "me/no-teacher"], "me/no-teacher"),
        (["--gates", "teacher", "--teacher", "{encoder}", "--teacher_device", "gpu"], "--teacher_device gpu"),
        (["--gates", "judge", "--judge_engine", "openai"], "needs --base_urls"),
        (["--gates", "judge", "--judge_engine", "recorded"], "--judge_recordings"),
        (["--journal", "{file}/journal"], "is no folder"),
        (["--mining_cache", "{file}/cache"], "is no folder"),
        (["--audit", "true", "--audit_encoder", "me/no-audit"], "me/no-audit"),
    ],
)
def test_before_anything_is_mined(
    words: list[str],
    told: str,
    beir: Path,
    recordings: Path,  # noqa: F811
    encoder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torn = tmp_path / "torn.jsonl"
    torn.write_text(recordings.read_text().splitlines()[0] + '\n{"query_id": \n')
    (tmp_path / "empty").mkdir()
    places = {
        "torn": str(torn),
        "empty": str(tmp_path / "empty"),
        "encoder": encoder,
        "file": str(recordings),
    }
    words = [word.format(**places) for word in words]
    build = ["build", *options(beir, recordings, encoder, tmp_path / "out"), *words]
    assert told in fails(capsys, *build)
    assert not (tmp_path / "out").exists()
    # A dry run says the same beside what it costs, where its stages can be made at all.
    capsys.readouterr()
    code = main([*build, "--dry_run"])
    captured = capsys.readouterr()
    assert told in captured.out + captured.err and (code == 2 or "would stop: " in captured.out)


def test_an_llm_that_is_not_to_be_had(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syneg.llm.engines.vllm_engine.check_vllm", lambda: None)
    with pytest.raises(InputError, match=r"--llm me/llm: it is neither a model's folder here nor to be had"):
        check_ready(LLMArguments(llm="me/llm"))
    with pytest.raises(InputError, match="no chat template"):
        check_ready(LLMArguments(llm=encoder))
    # Several copies, of which vLLM would use one.
    with pytest.raises(InputError, match="gives every request to the first of its copies"):
        check_ready(LLMArguments(llm="me/llm", engine_options='{"data_parallel_size": 4}'))
    # What only the engine can tell is left to it.
    check_ready(LLMArguments(llm="me/llm", engine_options="load_format=gguf"))


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for engine, remedy in {"vllm": "syneg[vllm]", "ray": "syneg[ray]", "openai": "syneg[openai]"}.items():
        with pytest.raises(InputError, match=re.escape(remedy)):
            check_ready(LLMArguments(engine=engine, base_urls=["http://x/v1"]))


def test_a_disk_that_is_too_small(
    beir: Path,
    recordings: Path,  # noqa: F811
    encoder: str,
    tmp_path: Path,
    no_mining: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("syneg.building.least_bytes", lambda parts: usage.free + (1 << 40))
    line = fails(capsys, "build", *options(beir, recordings, encoder, tmp_path / "out"))
    assert "MB are needed. Make room there" in line


def test_the_size_of_what_is_written_is_a_lower_bound(
    beir: Path,
    recordings: Path,  # noqa: F811
    encoder: str,
    tmp_path: Path,
) -> None:
    from syneg.building import build_parts, data_set_parser, least_bytes, stage_arguments
    from syneg.llm.journal import Journal

    output = tmp_path / "out"
    words = options(beir, recordings, encoder, output)
    args = stage_arguments(*data_set_parser().parse(words[:-2]))
    parts = build_parts(args, Journal(tmp_path / "journal"))
    texts = [pair.positive for pair in parts[0].pairs]
    # 3 of bm25, 3 of dense, one written, and the positive.
    assert least_bytes(parts) == round(sum(map(len, texts)) * 8 / 5)
    assert main(["build", *words]) == 0
    assert least_bytes(parts) < sum(path.stat().st_size for path in output.rglob("*.parquet"))


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main([*words, "--dry_run"]) == 0
    return capsys.readouterr().out


def cells(printed: str, stage: str) -> list[str]:
    line = [line for line in printed.splitlines() if line.startswith(stage + " ")][-1]
    return re.split(r"\s{2,}", line)


def test_a_dry_run_tells_the_whole(
    beir: Path, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", "--source", str(beir), "--encoder", encoder, "--output", str(tmp_path / "out")]
    words += ["--engine", "openai", "--base_urls", "http://127.0.0.1:9/v1", "--mined_per_miner", "3"]
    words += ["--tokens_per_second", "100", "--gpu_price", "7200", "--gates", "checks,teacher,judge"]
    printed = dry_run(capsys, *words)
    assert "one prompt:" in printed and "  | <query>" in printed
    first = next(iter(load_source(beir).pairs("train")))
    assert f"  | {first.query}" in printed.splitlines()
    _, work, requests, tokens, hours, money = cells(printed, "generate")
    assert (work, requests) == ("11 pairs", "11")
    completions = int(re.search(r"completions: about (\d+) tokens", printed).group(1))  # type: ignore[union-attr]
    prompts = int(re.search(r"prompts: about (\d+) tokens", printed).group(1))  # type: ignore[union-attr]
    assert tokens == f"{completions + prompts:,}"
    assert float(hours) == pytest.approx(completions / 100 / 3600, rel=0.05)
    assert float(money) == pytest.approx(completions / 100 * 2, abs=0.01)
    # One written and six mined negatives a pair, all of which the judge reads.
    assert cells(printed, "judge")[1:3] == ["at most 7 documents a pair", "77"]
    assert cells(printed, "mine")[1] == "72 texts to encode"
    assert cells(printed, "teacher")[1] == "11 negatives to score"
    assert cells(printed, "train")[1] == "11 pairs, each epoch"
    assert "for two CPU cores (measured with" in printed and "would stop" not in printed
    only = dry_run(capsys, *words, "--judge_of", "synthetic", "--teacher", encoder)
    assert cells(only, "judge")[2] == "11" and cells(only, "teacher")[1] == "77 negatives to score"
    assert cells(only, "teacher")[2] == "unknown", "no rate of a cross-encoder was measured"
    assert not (tmp_path / "out").exists() and not (tmp_path / "out-journal").exists()


def test_a_dry_run_of_generate_and_gate(
    beir: Path,
    recordings: Path,  # noqa: F811
    encoder: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = str(tmp_path / "written")
    words = ["generate", "--source", str(beir), "--engine", "recorded", "--recordings", str(recordings)]
    printed = dry_run(capsys, *words, "--output", written)
    assert cells(printed, "generate")[2] == "11" and "one prompt:" in printed
    assert main([*words, "--output", written]) == 0
    assert f"Next: syneg gate --dataset {written} --output {written}-gated" in capsys.readouterr().out
    gate = ["gate", "--dataset", written, "--output", str(tmp_path / "gated"), "--gates", "judge"]
    gate += ["--engine", "openai"]
    printed = dry_run(capsys, *gate)
    assert "train: 11 rows, 11 negatives" in printed and cells(printed, "judge")[2] == "11"
    assert "would stop: --engine openai needs --base_urls" in printed
    assert not (tmp_path / "gated").exists()


def test_build_with_an_audit(
    beir: Path, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recordings.jsonl"
    pairs = list(load_source(beir).pairs("train"))
    path.write_text("".join(json.dumps(record(pair)) + "\n" for pair in pairs))
    output = tmp_path / "out"
    words = ["build", *options(beir, path, encoder, output), "--audit", "true", "--audit_encoder", encoder]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert re.search(r"audit: 11 synthetic and \d+ mined negatives", printed)
    assert re.search(r"by surface: AUC \d\.\d+", printed) and "by embeddings: AUC" in printed
    manifest = json.loads((output / "syneg.json").read_text())
    assert manifest["audit"]["train"]["synthetic"] == 11
    assert len(load_dataset(str(output), split="train")) == 11


def test_mining_ends_with_the_training_of_what_mined(
    beir: Path, encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mined = tmp_path / "mined"
    assert main(["mine", "--source", str(beir), "--encoder", encoder, "--output", str(mined)]) == 0
    *_, look, train, write = capsys.readouterr().out.splitlines()
    assert look == f"Next: syneg inspect {mined}"
    assert (
        train
        == f"  or: syneg train --model {encoder} --dataset {mined} --mixture dense=3 --output {mined}-model"
    )
    assert write == f"  or: syneg generate --dataset {mined} --output {mined}-written"
