"""Pushing to a hub that behaves, and to one that does not."""

import logging
import time

import pytest
from hub.test_folders import make_rows, write
from hub_server import ENVIRONMENT, HubServer

from syneg.commands.push import main
from syneg.errors import InputError
from syneg.hub.cards import DatasetCardInfo
from syneg.hub.folders import FolderWriter
from syneg.hub.publish import ATTEMPTS, push_dataset
from syneg.rows import FEATURES

NAME = "syneg/toy-hardneg"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that the clients of this process talk to, as a user who may write."""
    from huggingface_hub import close_session, constants

    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        for name in ENVIRONMENT.keys() - {"HF_HUB_OFFLINE"}:
            monkeypatch.setattr(constants, name, True)
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        close_session()
        yield server
        close_session()


@pytest.fixture
def waits(monkeypatch):
    """The waits between tries, in seconds, instead of the waiting."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr("syneg.hub.publish._patiently.__defaults__", (waited.append,))
    return waited


@pytest.fixture
def folder(tmp_path):
    return build(tmp_path / "toy")


def build(output, count=2000, version="1.0.0", **kwargs):
    info = DatasetCardInfo(name="toy-hardneg", licence="apache-2.0", languages=["en"], version=version)
    with FolderWriter(output, shard_bytes=10_000, **kwargs) as folder:
        folder.write("default", "train", make_rows(count), FEATURES)
        folder.write_card(info)
    return output


def files(hub, revision="main"):
    return {path: file.content for path, file in hub.repo("dataset", NAME).at(revision).files.items()}


def on_disk(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.parquet")}


def test_a_version_is_one_commit_and_a_tag(hub, folder):
    done = push_dataset(folder, NAME)
    repo = hub.repo("dataset", NAME)
    assert [commit.message for commit in repo.commits] == ["initial commit", "Upload v1.0.0 with syneg"]
    assert done.commit == repo.tags["v1.0.0"] == repo.commits[-1].oid
    assert not repo.private
    sent = files(hub)
    assert {name: sent[name] for name in on_disk(folder)} == on_disk(folder)
    assert b'load_dataset("syneg/toy-hardneg", split="train")' in sent["README.md"]
    assert set(sent) == {*on_disk(folder), "README.md", "syneg.json", ".gitattributes"}


def test_the_command_ends_with_how_to_load_what_was_published(hub, folder, capsys):
    main(["--folder", str(folder), "--repo_id", NAME])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == 'Next: load_dataset("syneg/toy-hardneg", revision="v1.0.0")'
    assert "v1.0.0" in hub.repo("dataset", NAME).tags


def test_a_private_repository_is_private(hub, folder):
    push_dataset(folder, NAME, private=True)
    assert hub.repo("dataset", NAME).private


def test_what_is_to_be_private_is_not_sent_to_a_public_repository(hub, tmp_path):
    push_dataset(build(tmp_path / "one"), NAME)
    before = files(hub)
    with pytest.raises(InputError, match="is public, so nothing was sent"):
        push_dataset(build(tmp_path / "two", 600, version="2"), NAME, private=True)
    assert files(hub) == before


def test_the_card_names_the_repository_it_is_in(hub, folder):
    push_dataset(folder, "writer/mine")
    card = hub.repo("dataset", "writer/mine").commits[-1].files["README.md"].content
    assert b'load_dataset("writer/mine", split="train")' in card
    assert b"path/to/this/folder" not in card


def test_the_next_version_removes_the_shards_that_it_does_not_have(hub, tmp_path):
    push_dataset(build(tmp_path / "one", 4000), NAME)
    done = push_dataset(build(tmp_path / "two", 600, version="1.1.0"), NAME)
    shards = {name for name in files(hub) if name.endswith(".parquet")}
    assert shards == set(on_disk(tmp_path / "two"))
    assert done.removed
    assert set(on_disk(tmp_path / "one")) <= set(files(hub, "v1.0.0")), "the tag keeps the old version"


def test_a_version_is_not_published_twice(hub, tmp_path):
    push_dataset(build(tmp_path / "one"), NAME)
    other = build(tmp_path / "two", 600)
    with pytest.raises(InputError, match=r"v1\.0\.0 is published already"):
        push_dataset(other, NAME)
    assert len(hub.repo("dataset", NAME).commits) == 2
    push_dataset(other, NAME, overwrite=True)
    assert set(on_disk(other)) <= set(files(hub, "v1.0.0"))


def test_a_repository_that_is_not_ours_is_left_alone(hub, folder):
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(NAME, repo_type="dataset")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="data.csv", repo_id=NAME, repo_type="dataset")
    with pytest.raises(InputError, match=r"did not publish \(data\.csv\).*--overwrite"):
        push_dataset(folder, NAME)
    assert set(files(hub)) == {".gitattributes", "data.csv"}
    done = push_dataset(folder, NAME, overwrite=True)
    assert done.removed == ["data.csv"]
    assert "data.csv" not in files(hub)


def test_files_that_people_add_on_the_hub_stay(hub, tmp_path):
    from huggingface_hub import HfApi

    push_dataset(build(tmp_path / "one"), NAME)
    HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="NOTES.md", repo_id=NAME, repo_type="dataset")
    push_dataset(build(tmp_path / "two", version="2"), NAME)
    assert "NOTES.md" in files(hub)


def test_a_folder_that_is_not_whole_is_not_sent(hub, folder):
    sorted(folder.rglob("*.parquet"))[0].write_bytes(b"PAR1")
    with pytest.raises(InputError, match="broken shard"):
        push_dataset(folder, NAME)
    assert not hub.requests


# Bad days.


def push_fails(folder, match):
    with pytest.raises(InputError, match=match) as caught:
        push_dataset(folder, NAME)
    assert "\n" not in str(caught.value)
    assert "hf_" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_token(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    push_fails(folder, "HTTP 401.*does not know the token.*HF_TOKEN")
    assert hub.repos == {}
    assert not hub.seen("PUT|POST")


def test_no_token(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "none"))
    push_fails(folder, "there is no token")
    assert not hub.requests


def test_no_write_access(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    push_fails(folder, "HTTP 403.*may not write there")
    assert hub.repos == {}


def test_no_write_access_to_a_repository_that_exists(hub, tmp_path, monkeypatch):
    push_dataset(build(tmp_path / "one"), NAME)
    before = files(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    push_fails(build(tmp_path / "two", 600, version="2"), "HTTP 403.*may not write there")
    assert files(hub) == before


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("path", ["whoami", "preupload", "objects/batch", "commit/main", "tag/"])
def test_a_busy_hub_is_waited_for(hub, folder, waits, status, path):
    method = "GET" if path == "whoami" else "POST"
    fault = hub.fail(method, path, times=2, status=status, headers={"Retry-After": "7"})
    push_dataset(folder, NAME)
    assert fault.times == 0
    assert waits
    assert len(hub.repo("dataset", NAME).commits) == 2
    assert hub.repo("dataset", NAME).tags["v1.0.0"] == hub.repo("dataset", NAME).commits[-1].oid


def test_a_hub_that_stays_away_is_given_up_with_an_error(hub, folder, waits, caplog):
    hub.fail("POST", "commit/main", times=1000, status=503, message="down for maintenance")
    with caplog.at_level(logging.WARNING):
        push_fails(folder, "HTTP 503.*maintenance.*Run this again")
    assert len(hub.seen("commit/main")) == ATTEMPTS
    assert "trying again" in caplog.text
    assert "hf_writer" not in caplog.text
    assert len(hub.repo("dataset", NAME).commits) == 1, "something was published"
    hub.faults.clear()
    sent = len(hub.seen("PUT /lfs"))
    push_dataset(folder, NAME)
    assert len(hub.seen("PUT /lfs")) == sent, "a shard that the hub had was sent again"


def test_a_hub_that_asks_to_wait_for_an_hour_is_not_waited_for(hub, folder, waits):
    hub.fail("POST", "commit/main", times=1, status=429, headers={"Retry-After": "3600"})
    push_fails(folder, "HTTP 429")
    assert not [wait for wait in waits if wait > 60]


def test_a_connection_cut_in_mid_upload_is_resumed(hub, folder, waits):
    shards = on_disk(folder)
    hub.fail("PUT", "/lfs/", times=1, cut=3000)
    push_dataset(folder, NAME)
    assert {name: files(hub)[name] for name in shards} == shards
    assert len(hub.repo("dataset", NAME).commits) == 2


def test_a_connection_that_is_always_cut_publishes_nothing(hub, tmp_path, waits):
    push_dataset(build(tmp_path / "one"), NAME)
    before = files(hub)
    hub.fail("PUT", "/lfs/", times=1000, cut=3000)
    newer = build(tmp_path / "two", 3000, version="2")
    push_fails(newer, "Run this again")
    assert files(hub) == before
    assert set(hub.repo("dataset", NAME).tags) == {"v1.0.0"}
    hub.faults.clear()
    push_dataset(newer, NAME)
    assert set(on_disk(newer)) <= set(files(hub, "v2"))


def test_a_push_that_is_run_again_sends_only_what_is_missing(hub, folder, waits):
    shards = len(on_disk(folder))
    hub.fail("PUT", "/lfs/", skip=2, times=1000, cut=3000)
    push_fails(folder, "Run this again")
    assert len(hub.store) == 2 < shards
    hub.faults.clear()
    hub.requests.clear()
    push_dataset(folder, NAME)
    assert len(hub.seen("PUT /lfs")) == shards - 2
    assert set(on_disk(folder)) <= set(files(hub, "v1.0.0"))


def test_a_connection_that_fails_under_the_newer_upload_protocol_is_tried_again(
    hub, folder, waits, monkeypatch
):
    from huggingface_hub import HfApi

    original, failures = HfApi.create_commit, [ConnectionError("Network error: reset"), TimeoutError()]

    def failing(self, *args, **kwargs):
        if failures:
            raise failures.pop()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", failing)
    push_dataset(folder, NAME)
    assert waits == [2.0, 4.0]
    assert hub.repo("dataset", NAME).tags["v1.0.0"] == hub.repo("dataset", NAME).commits[-1].oid


def test_a_lost_answer_to_the_commit_does_not_make_two(hub, folder, waits):
    hub.fail("POST", "commit/main", lose_reply=True)
    done = push_dataset(folder, NAME)
    repo = hub.repo("dataset", NAME)
    assert len(repo.commits) == 2
    assert done.commit == repo.commits[-1].oid == repo.tags["v1.0.0"]


def test_a_commit_of_somebody_else_meanwhile_is_not_overwritten(hub, folder, monkeypatch):
    from huggingface_hub import HfApi

    original = HfApi.create_commit

    def late(self, *args, **kwargs):
        repo = hub.repo("dataset", NAME)
        repo.commit(dict(repo.commits[-1].files), "somebody else's")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(HfApi, "create_commit", late)
    push_fails(folder, "HTTP 412.*Somebody else")
    assert hub.repo("dataset", NAME).commits[-1].message == "somebody else's"


def test_a_hub_without_room_is_an_error_at_once(hub, folder, waits):
    hub.fail("PUT", "/lfs/", times=1000, status=507, message="storage quota exceeded")
    push_fails(folder, "HTTP 507.*storage quota")
    assert len(hub.repo("dataset", NAME).commits) == 1


def test_a_card_that_the_hub_refuses_is_an_error_before_the_upload(hub, tmp_path):
    write(tmp_path / "toy")
    card = tmp_path / "toy" / "README.md"
    card.write_text(card.read_text().replace("apache-2.0", "do-what-you-like"))
    push_fails(tmp_path / "toy", "license")
    assert not hub.seen("PUT")


def test_a_hub_that_is_not_there(hub, folder, waits, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    push_fails(folder, "Connect")
