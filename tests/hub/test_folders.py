"""Folders as written and as `load_dataset` reads them back."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset

from syneg.errors import InputError
from syneg.hub.cards import DatasetCardInfo
from syneg.hub.folders import FolderWriter, check_names, check_output, load_split, read_folder
from syneg.hub.shards import evenly_spaced
from syneg.rows import (
    DROPPED_FEATURES,
    FEATURES,
    iter_triplets,
    make_dropped,
    make_negative,
    make_row,
    triplet_features,
)


def make_rows(count):
    for i in range(count):
        negatives = [
            make_negative(f"mined document {i}", "bm25", doc_id=f"d{i}", rank=0, score=12.5),
            make_negative(
                f"written document {i}", "synthetic", domain="Physics", reasoning="near", generator="m"
            ),
        ]
        yield make_row(f"q{i}", f"query {i}", f"p{i}", f"positive {i}", negatives)


def write(output, count=20, dropped=3, **kwargs):
    with FolderWriter(output, **kwargs) as folder:
        folder.write("default", "train", make_rows(count), FEATURES)
        folder.write("triplet", "train", iter_triplets(make_rows(count), 2), triplet_features(2))
        lost = (make_dropped(row, row["negatives"][1], "length", "too long") for row in make_rows(dropped))
        folder.write("dropped", "train", lost, DROPPED_FEATURES)
        folder.write_card(DatasetCardInfo(name="toy", licence="apache-2.0", languages=["en"]))
    return output


def load(path, *args, **kwargs):
    kwargs.setdefault("cache_dir", str(path.parent / "cache"))
    return load_dataset(str(path), *args, **kwargs)


def test_load_dataset_reads_back_each_configuration_as_written(tmp_path):
    output = write(tmp_path / "toy")
    rows = load(output, split="train")
    assert rows.features == FEATURES
    assert list(rows) == list(make_rows(20))
    triplets = load(output, "triplet", split="train")
    assert triplets.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    assert triplets[3]["negative_2"] == "written document 3"
    dropped = load(output, "dropped", split="train")
    assert dropped.features == DROPPED_FEATURES
    assert dropped[2]["negative"]["text"] == "written document 2"
    assert dropped[2]["gate"] == "length"


def test_streaming_reads_the_same_rows(tmp_path):
    output = write(tmp_path / "toy")
    assert list(load(output, split="train", streaming=True)) == list(make_rows(20))


def test_a_split_without_rows_loads_empty_with_its_columns(tmp_path):
    output = write(tmp_path / "toy", dropped=0)
    dropped = load_split(output, "dropped")
    assert len(dropped) == 0
    assert dropped.features == DROPPED_FEATURES
    assert read_folder(output).empty == {"dropped": ["train"]}
    assert "The gates dropped nothing" in (output / "README.md").read_text()
    assert len(load(output, split="train")) == 20


def test_a_split_without_rows_does_not_break_the_others(tmp_path):
    with FolderWriter(tmp_path / "toy") as folder:
        folder.write("default", "train", make_rows(4), FEATURES)
        folder.write("default", "test", make_rows(0), FEATURES)
    assert {name: len(part) for name, part in load(tmp_path / "toy").items()} == {"train": 4}


def test_load_split_names_what_is_not_there(tmp_path):
    output = write(tmp_path / "toy")
    assert len(load_split(output, "dropped")) == 3
    with pytest.raises(InputError, match=r"unknown split.*'trian'.*'train'"):
        load_split(output, "default", "trian")
    with pytest.raises(InputError, match=r"unknown configuration.*'triplets'.*'triplet'"):
        load_split(output, "triplets")
    with pytest.raises(InputError, match="neither a folder"):
        load_split(tmp_path / "nothing")


def test_a_data_set_without_rows_is_an_error(tmp_path):
    with pytest.raises(InputError, match="has no rows"), FolderWriter(tmp_path / "toy") as folder:
        folder.write("default", "train", [], FEATURES)
    assert not (tmp_path / "toy").exists()


def test_shards_are_bounded_numbered_and_keep_the_order(tmp_path):
    with FolderWriter(tmp_path / "toy", shard_bytes=10_000) as folder:
        split = folder.write("default", "train", make_rows(4000), FEATURES)
    names = sorted(path.name for path in (tmp_path / "toy" / "default").iterdir())
    assert len(names) > 2
    assert names == [f"train-{i:05d}-of-{len(names):05d}.parquet" for i in range(len(names))]
    assert split.num_examples == 4000
    for name, size in split.files.items():
        assert (tmp_path / "toy" / name).stat().st_size == size
    rows = load(tmp_path / "toy", split="train")
    assert rows["query_id"][:] == [f"q{i}" for i in range(4000)]
    assert rows.info.splits["train"].num_examples == 4000


def test_a_dataset_is_written_like_its_rows(tmp_path):
    dataset = Dataset.from_generator(
        lambda: make_rows(1200), features=FEATURES, cache_dir=str(tmp_path / "cache")
    )
    with FolderWriter(tmp_path / "toy") as folder:
        split = folder.write("default", "train", dataset, FEATURES)
    assert split.num_examples == 1200
    assert list(load(tmp_path / "toy", split="train")) == list(dataset)


def test_several_splits_fill_in_one_pass(tmp_path):
    with (
        FolderWriter(tmp_path / "toy") as folder,
        folder.open_split("default", "train", FEATURES) as rows,
        folder.open_split("triplet", "train", triplet_features(2)) as triplets,
    ):
        for row in make_rows(7):
            rows.add(row)
            for triplet in iter_triplets([row], 2):
                triplets.add(triplet)
    assert len(load(tmp_path / "toy", "triplet", split="train")) == 7


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.parametrize("shard_bytes", [10_000, 2**28])
def test_one_pass_writes_what_one_write_for_each_configuration_writes(tmp_path, shard_bytes):
    rows = list(make_rows(1800))
    for row in rows[::3]:
        row["negatives"] = row["negatives"][:1]
    lost = {
        i: [make_dropped(row, row["negatives"][0], "copy", "same")] * 2 for i, row in enumerate(rows[:90])
    }
    with FolderWriter(tmp_path / "three", shard_bytes=shard_bytes) as folder:
        kept = [row for i, row in enumerate(rows) if i % 5]
        dataset = Dataset.from_generator(
            lambda: iter(kept), features=FEATURES, cache_dir=str(tmp_path / "cache")
        )
        folder.write("default", "train", dataset, FEATURES)
        folder.write("triplet", "train", iter_triplets(dataset, 2), triplet_features(2))
        folder.write("dropped", "train", (d for ds in lost.values() for d in ds), DROPPED_FEATURES)
        folder.write_card(DatasetCardInfo(name="toy"))
    with FolderWriter(tmp_path / "one", shard_bytes=shard_bytes) as folder:
        with folder.open_rows("train", triplet_negatives=2) as writer:
            for i, row in enumerate(rows):
                writer.add(row if i % 5 else None, lost.get(i, []))
        folder.write_card(DatasetCardInfo(name="toy"))
    one, three = contents(tmp_path / "one"), contents(tmp_path / "three")
    assert one.keys() == three.keys()
    assert [name for name in one if one[name] != three[name]] == []
    assert len(one) > (6 if shard_bytes == 10_000 else 4)
    assert (writer.rows, writer.dropped, writer.without_triplet) == (1440, 180, 480)


def test_without_triplet_negatives_there_is_no_configuration_triplet(tmp_path):
    with FolderWriter(tmp_path / "toy") as folder, folder.open_rows("train") as writer:
        for row in make_rows(3):
            writer.add(row)
    info = read_folder(tmp_path / "toy")
    assert list(info.configs) == ["default"]
    assert info.empty == {"dropped": ["train"]}


@pytest.mark.parametrize("split", ["train-2024", "../train", "a.b", "", "all", "train 1"])
def test_a_split_that_cannot_be_loaded_is_named_before_any_work(tmp_path, split):
    with pytest.raises(InputError, match=f"split {split!r}".replace(".", r"\.")):
        check_names(tmp_path / "toy", ["train", split])
    assert list(tmp_path.iterdir()) == []


def test_a_split_is_told_by_what_to_rename_it(tmp_path):
    with pytest.raises(InputError, match="rename it, as in 'train_2024'"):
        check_names(tmp_path / "toy", ["train-2024"])


@pytest.mark.parametrize("name", ["me/mine", "a|b", "what?", ""])
def test_a_name_that_is_a_path_is_named_before_any_work(tmp_path, name):
    with pytest.raises(InputError, match="a data set's name is no path") as error:
        check_names(tmp_path / "toy", ["train"], name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", ["a[1]", "a::b"])
def test_an_output_that_datasets_would_take_for_a_pattern_is_named(tmp_path, name):
    with pytest.raises(InputError, match="as a pattern"):
        check_names(tmp_path / name / "toy", ["train"])
    with pytest.raises(InputError, match="as a pattern"):
        FolderWriter(tmp_path / name)


@pytest.mark.parametrize("name", ["me mine", "r\u00e9sum\u00e9", "v1.2-b", "100%25", "~x", "a=b,c"])
def test_names_that_are_let_through_can_be_loaded(tmp_path, name):
    split = "\u65e5\u672c_2024"
    check_names(tmp_path / name, [split], name)
    with FolderWriter(tmp_path / name) as folder:
        folder.write("default", split, make_rows(2), FEATURES)
    assert len(load(tmp_path / name, split=split)) == 2


def test_an_output_that_cannot_be_written_is_named_before_any_work(tmp_path):
    check_output(tmp_path / "new" / "toy")
    assert list(tmp_path.iterdir()) == [], "the check leaves nothing behind"
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file is no folder"):
        check_output(tmp_path / "file" / "toy")
    with pytest.raises(InputError, match=r"nothing can be written in /proc"):
        check_output("/proc/toy")
    with pytest.raises(InputError, match=r"MB free, and about 1,000,000,000,000 MB are needed"):
        check_output(tmp_path / "toy", size=10**18)
    write(tmp_path / "toy")
    with pytest.raises(InputError, match="--overwrite"):
        check_output(tmp_path / "toy")
    check_output(tmp_path / "toy", overwrite=True)


def test_read_folder_gives_what_was_written(tmp_path):
    info = read_folder(write(tmp_path / "toy"))
    assert {config: list(splits) for config, splits in info.configs.items()} == {
        "default": ["train"],
        "dropped": ["train"],
        "triplet": ["train"],
    }
    assert info.configs["default"]["train"].num_examples == 20
    assert info.configs["default"]["train"].features == FEATURES
    assert info.manifest["licence"] == "apache-2.0"


def test_read_folder_names_a_missing_and_a_broken_shard(tmp_path):
    with FolderWriter(tmp_path / "toy", shard_bytes=10_000) as folder:
        folder.write("default", "train", make_rows(4000), FEATURES)
    shards = sorted((tmp_path / "toy" / "default").iterdir())
    shards[1].write_bytes(shards[1].read_bytes()[:-100])
    with pytest.raises(InputError, match=r"train-00001-of-.*broken"):
        read_folder(tmp_path / "toy")
    shards[1].unlink()
    with pytest.raises(InputError, match="train-00001-of-"):
        read_folder(tmp_path / "toy")


def test_examples_are_evenly_spaced(tmp_path):
    with FolderWriter(tmp_path / "toy", shard_bytes=10_000) as folder:
        folder.write("default", "train", make_rows(2000), FEATURES)
    files = sorted((tmp_path / "toy" / "default").iterdir())
    assert [row["query_id"] for row in evenly_spaced(files, 4)] == ["q0", "q500", "q1000", "q1500"]
    assert evenly_spaced(files, 5000)[-1]["query_id"] == "q1999"


def test_an_existing_folder_is_replaced_only_when_asked(tmp_path):
    output = write(tmp_path / "toy", count=20)
    with pytest.raises(InputError, match="--overwrite"):
        write(output, count=5)
    assert len(load(output, split="train")) == 20
    write(output, count=5, overwrite=True)
    assert len(load(output, split="train", cache_dir=str(tmp_path / "cache2"))) == 5


def test_a_folder_that_appears_during_the_build_is_not_replaced(tmp_path):
    output = tmp_path / "toy"
    with pytest.raises(InputError, match="--overwrite"), FolderWriter(output) as folder:
        folder.write("default", "train", make_rows(3), FEATURES)
        write(output, count=20)
    assert len(load(output, split="train")) == 20
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["toy"]


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(InputError, match="no data set folder of ours"):
        write(tmp_path / "thesis", overwrite=True)
    output = write(tmp_path / "toy")
    (output / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        write(output, overwrite=True)
    assert (output / "notes.txt").read_text() == "mine"


def test_a_failing_build_leaves_what_was_there(tmp_path):
    output = write(tmp_path / "toy", count=20)

    def failing():
        yield from make_rows(700)
        raise RuntimeError("the engine died")

    with pytest.raises(RuntimeError, match="engine died"), FolderWriter(output, overwrite=True) as folder:
        folder.write("default", "train", failing(), FEATURES)
    assert len(load(output, split="train")) == 20
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["toy"]


def test_a_killed_build_leaves_no_folder_and_the_next_one_clears_up(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from hub.test_folders import FEATURES, FolderWriter, make_rows

        def rows():
            yield from make_rows(1200)
            print("half way", flush=True)
            time.sleep(600)

        with FolderWriter({str(tmp_path / "toy")!r}) as folder:
            folder.write("default", "train", rows(), FEATURES)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half way\n"
    partial = [path for path in tmp_path.iterdir() if path.name.startswith(".toy.partial-")]
    assert len(partial) == 1
    write(tmp_path / "other")  # another build beside it
    with FolderWriter(tmp_path / "toy") as folder:  # a second build of the same folder
        assert partial[0].exists(), "a build that is running was cleared away"
        folder.write("default", "train", make_rows(3), FEATURES)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert partial[0].exists()
    write(tmp_path / "toy", overwrite=True)
    assert not partial[0].exists()
    assert len(load(tmp_path / "toy", split="train")) == 20


def test_a_replacement_cut_short_is_finished_by_the_next_build(tmp_path):
    output = write(tmp_path / "toy", count=20)
    output.rename(tmp_path / ".toy.replaced-123")  # killed between the two renames
    with pytest.raises(RuntimeError), FolderWriter(output, overwrite=True):
        raise RuntimeError
    assert len(load(output, split="train")) == 20


def test_a_full_disk_says_so_and_replaces_nothing(tmp_path):
    output = write(tmp_path / "toy", count=20)
    script = textwrap.dedent(
        f"""
        import resource, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from hub.test_folders import FEATURES, FolderWriter, make_rows
        from syneg.errors import InputError

        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            with FolderWriter({str(output)!r}, overwrite=True) as folder:
                folder.write("default", "train", make_rows(5000), FEATURES)
        except InputError as error:
            print(error)
        """
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "the disk is full" in result.stdout
    assert result.stdout.count("\n") == 1
    assert len(load(output, split="train")) == 20
    assert not [path for path in tmp_path.iterdir() if ".partial-" in path.name]


def test_a_name_that_leaves_the_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="letters, digits"), FolderWriter(tmp_path / "toy") as folder:
        folder.write("../default", "train", make_rows(1), FEATURES)


def test_a_row_with_other_columns_is_named(tmp_path):
    row = dict(next(make_rows(1)))
    del row["origin"]
    with (
        pytest.raises(InputError, match="row 0: 'origin' is missing"),
        FolderWriter(tmp_path / "toy") as folder,
    ):
        folder.write("default", "train", [row], FEATURES)
    assert not (tmp_path / "toy").exists()


def test_writing_a_split_twice_is_an_error(tmp_path):
    with pytest.raises(InputError, match="written already"), FolderWriter(tmp_path / "toy") as folder:
        folder.write("default", "train", make_rows(1), FEATURES)
        folder.write("default", "train", make_rows(1), FEATURES)


def test_nothing_in_a_folder_can_be_read_only_by_its_maker(tmp_path):
    output = write(tmp_path / "toy")
    plain = tmp_path / "plain"
    plain.mkdir()
    assert output.stat().st_mode == plain.stat().st_mode


def test_shards_have_row_groups_small_enough_to_stream(tmp_path):
    with FolderWriter(tmp_path / "toy") as folder:
        folder.write("default", "train", make_rows(1300), FEATURES)
    file = pq.ParquetFile(next((tmp_path / "toy" / "default").iterdir()))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [500, 500, 300]


def test_memory_does_not_grow_with_the_rows(tmp_path):
    script = textwrap.dedent(
        """
        import sys
        sys.argv = ["folder_memory.py", "--one", "--rows", sys.argv[1]]
        sys.path.insert(0, "benchmarks")
        import folder_memory
        folder_memory.main()
        """
    )
    peaks = []
    for rows in (2000, 8000):
        result = subprocess.run(
            [sys.executable, "-c", script, str(rows)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        peaks.append(float(result.stdout.split("|")[3].replace(",", "")))
    assert peaks[1] - peaks[0] < 40, f"{peaks} MB; the larger data set has 60 MB of text more"
