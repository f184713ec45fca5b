"""Pushed to a hub, then loaded by the real clients in fresh processes with an empty cache."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from hub.test_folders import make_rows
from hub.test_publish import build
from hub_server import ENVIRONMENT, HubServer

from syneg.hub.cards import DatasetCardInfo
from syneg.hub.folders import FolderWriter
from syneg.rows import DROPPED_FEATURES, FEATURES, iter_triplets, make_dropped, triplet_features
from tests.stand_in import tiny_encoder

NAME = "syneg/msmarco-hardneg"


@pytest.fixture(scope="module")
def hub():
    with HubServer() as server:
        yield server


def run(hub, home, code, token=None, **environment):
    """Runs code in a process of its own, whose home is its own too; returns the JSON it prints last."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG_"))
    }
    environment = (
        kept
        | ENVIRONMENT
        | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HOME": str(home)}
        | ({"HF_TOKEN": token} if token else {})
        | environment
    )
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout.splitlines()[-1]) if result.stdout.strip() else None


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory):
    """Two versions on the hub, pushed by `syneg push` in a process of its own."""
    home = tmp_path_factory.mktemp("pusher")
    for version, count in (("1.0.0", 700), ("1.1.0", 900)):
        output = home / version
        with FolderWriter(output, shard_bytes=10_000) as folder:
            folder.write("default", "train", make_rows(count), FEATURES)
            folder.write("default", "test", make_rows(5), FEATURES)
            folder.write("triplet", "train", iter_triplets(make_rows(count), 2), triplet_features(2))
            lost = (make_dropped(row, row["negatives"][1], "length", "too long") for row in make_rows(4))
            folder.write("dropped", "train", lost, DROPPED_FEATURES)
            folder.write_card(
                DatasetCardInfo(name="msmarco-hardneg", version=version, licence="other", languages=["en"])
            )
        code = f"""
            from syneg.commands.push import main
            main(["--folder", {str(output)!r}, "--repo_id", {NAME!r}])
            print("true")
        """
        assert run(hub, home, code, token="hf_writer") is True
    return hub


def test_load_dataset_in_a_fresh_process(published, tmp_path):
    got = run(
        published,
        tmp_path,
        f"""
        import json
        from datasets import load_dataset
        from syneg.rows import DROPPED_FEATURES, FEATURES

        whole = load_dataset({NAME!r})
        rows = load_dataset({NAME!r}, split="train")
        triplet = load_dataset({NAME!r}, "triplet", split="train")
        dropped = load_dataset({NAME!r}, "dropped", split="train")
        pinned = load_dataset({NAME!r}, split="train", revision="v1.0.0")
        streamed = load_dataset({NAME!r}, split="train", streaming=True)
        print(json.dumps(dict(
            splits={{name: len(part) for name, part in whole.items()}},
            same=rows.features == FEATURES and dropped.features == DROPPED_FEATURES,
            last=rows[-1],
            triplet=[len(triplet), triplet[0]],
            dropped=[len(dropped), dropped[0]["gate"]],
            pinned=len(pinned),
            streamed=[row["query_id"] for row in streamed] == rows["query_id"][:],
        )))
        """,
    )
    assert got["splits"] == {"train": 900, "test": 5}
    assert got["same"]
    assert got["last"]["query_id"] == "q899"
    assert got["last"]["negatives"][1]["domain"] == "Physics"
    assert got["triplet"] == [
        900,
        {
            "anchor": "query 0",
            "positive": "positive 0",
            "negative_1": "mined document 0",
            "negative_2": "written document 0",
        },
    ]
    assert got["dropped"] == [4, "length"]
    assert got["pinned"] == 700
    assert got["streamed"]


def test_streaming_reads_only_what_it_shows(published, tmp_path):
    published.requests.clear()
    got = run(
        published,
        tmp_path,
        f"""
        import json
        from datasets import load_dataset
        print(json.dumps(next(iter(load_dataset({NAME!r}, split="train", streaming=True)))))
        """,
    )
    assert got["query"] == "query 0"
    shards = set(published.seen(r"GET .*resolve/.*default/train.*parquet"))
    assert len(shards) <= 1 < len([n for n in files(published) if n.startswith("default/train")])


def files(hub):
    return hub.repo("dataset", NAME).at("main").files


def test_load_split_reads_from_the_hub(published, tmp_path):
    got = run(
        published,
        tmp_path,
        f"""
        import json
        from syneg.errors import InputError
        from syneg.hub.folders import load_split
        try:
            load_split("syneg/nothing-here")
        except InputError as error:
            print(json.dumps([len(load_split({NAME!r}, "dropped")), str(error)]))
        """,
    )
    assert got[0] == 4
    assert "'syneg/nothing-here': neither a folder" in got[1]
    assert "\n" not in got[1]


def test_inspect_looks_at_the_hub_without_downloading_it(published, tmp_path):
    published.requests.clear()
    got = run(
        published,
        tmp_path,
        f"""
        import json
        from pathlib import Path
        from syneg.errors import InputError
        from syneg.commands.inspect import main

        page, old = Path({str(tmp_path)!r}) / "page.html", Path({str(tmp_path)!r}) / "old.html"
        main([{NAME!r}, "--page", str(page), "--shown_pairs", "3", "--measured_pairs", "3"])
        main([{NAME + "@v1.0.0"!r}, "--page", str(old), "--shown_pairs", "3", "--measured_pairs", "3"])
        try:
            main(["syneg/nothing-here", "--text"])
        except InputError as error:
            print(json.dumps([page.read_text(), old.read_text(), str(error)]))
        """,
    )
    assert "900 pairs in" in got[0]
    assert "700 pairs in" in got[1]
    assert "dropped by length: too long" in got[0]
    assert "no data set of ours" in got[2]
    assert not published.seen("resolve/.*triplet")


def test_a_full_disk_while_loading_says_so(published, tmp_path):
    got = run(
        published,
        tmp_path,
        f"""
        import json, resource
        from syneg.errors import InputError
        from syneg.hub.folders import load_split
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            load_split({NAME!r})
        except InputError as error:
            print(json.dumps(str(error)))
        """,
    )
    assert "the disk is full" in got
    assert "\n" not in got


def test_a_private_data_set_needs_the_token(hub, tmp_path):
    code = f"""
        from syneg.commands.push import main
        main(["--folder", {str(build(tmp_path / "toy"))!r}, "--repo_id", "syneg/secret", "--private"])
        print("true")
    """
    run(hub, tmp_path / "pusher", code, token="hf_writer")
    code = """
        import json
        from syneg.errors import InputError
        from syneg.hub.folders import load_split
        try:
            print(json.dumps(len(load_split("syneg/secret"))))
        except InputError as error:
            print(json.dumps(str(error)))
    """
    assert run(hub, tmp_path / "a", code, token="hf_writer") == 2000
    assert "neither a folder here nor" in run(hub, tmp_path / "b", code, token="hf_reader")


def test_a_model_is_pushed_and_loaded_by_its_id(hub, tmp_path):
    encoder = tiny_encoder(tmp_path)
    got = run(
        hub,
        tmp_path / "pusher",
        f"""
        import json
        from pathlib import Path
        from sentence_transformers import SentenceTransformer
        from syneg.commands.push import main

        here = Path({str(tmp_path)!r})
        model = SentenceTransformer({encoder!r})
        model.save_pretrained(str(here / "model"))
        (here / "model" / "checkpoint-5").mkdir()
        (here / "model" / "checkpoint-5" / "optimizer.pt").write_text("x")
        main(["--folder", str(here / "model"), "--repo_id", "syneg/tiny", "--tag", "v1"])
        print(json.dumps(model.encode("the river freezes").tolist()))
        """,
        token="hf_writer",
    )
    sent = hub.repo("model", "syneg/tiny").at("v1").files
    assert "model.safetensors" in sent
    assert not [name for name in sent if "checkpoint" in name or "optimizer" in name]
    loaded = run(
        hub,
        tmp_path / "reader",
        """
        import json
        from sentence_transformers import SentenceTransformer
        model = SentenceTransformer("syneg/tiny", revision="v1")
        print(json.dumps(model.encode("the river freezes").tolist()))
        """,
    )
    assert loaded == pytest.approx(got, abs=1e-6)


def test_the_trainer_pushes_its_model(hub, tmp_path):
    """Trained and pushed in one process by the recipe's own calls, loaded by its name in another."""
    encoder = tiny_encoder(tmp_path)
    got = run(
        hub,
        tmp_path / "pusher",
        f"""
        import json
        from pathlib import Path
        from datasets import Dataset
        from sentence_transformers import SentenceTransformer
        from syneg import ContrastiveArguments, ContrastiveTrainer

        here = Path({str(tmp_path)!r})
        model = SentenceTransformer({encoder!r})
        rows = {{"query": ["river", "market"], "positive": ["the river", "the market"],
                 "negative": ["market night", "river night"]}}
        args = ContrastiveArguments(
            str(here / "out"), max_steps=2, save_strategy="no", report_to="none", use_cpu=True,
            push_to_hub=True, hub_model_id="syneg/trained",
        )
        trainer = ContrastiveTrainer(model=model, args=args, train_dataset=Dataset.from_dict(rows))
        trainer.train()
        trainer.push_to_hub()
        print(json.dumps(trainer.model.eval().encode("the river freezes").tolist()))
        """,
        token="hf_writer",
    )
    sent = hub.repo("model", "syneg/trained").at("main").files
    assert "model.safetensors" in sent
    assert not [name for name in sent if "optimizer" in name]
    card = sent["README.md"].content.decode()
    assert "### Negatives" in card and "**Instances trained on:** 4" in card
    loaded = run(
        hub,
        tmp_path / "reader",
        """
        import json
        from sentence_transformers import SentenceTransformer
        print(json.dumps(SentenceTransformer("syneg/trained").encode("the river freezes").tolist()))
        """,
    )
    assert loaded == pytest.approx(got, abs=1e-6)
