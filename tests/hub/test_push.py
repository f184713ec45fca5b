"""`syneg push` up to where the network begins."""

import pytest
from hub.test_folders import write

from syneg.commands.push import main
from syneg.errors import InputError


def test_a_dry_run_shows_the_card_and_the_files_and_sends_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("syneg.hub.publish.HfApi", None)
    output = write(tmp_path / "toy")
    main(["--folder", str(output), "--repo_id", "me/toy", "--dry_run"])
    out = capsys.readouterr().out
    assert 'load_dataset("me/toy", split="train")' in out
    assert "default/train-00000-of-00001.parquet" in out
    assert "nothing was sent" in out


@pytest.mark.parametrize("repo_id", ["toy", "me/to y", "a/b/c", "me/-toy-"])
def test_a_repository_id_that_cannot_be_is_named(tmp_path, repo_id):
    output = write(tmp_path / "toy")
    with pytest.raises(InputError, match="--repo_id") as caught:
        main(["--folder", str(output), "--repo_id", repo_id, "--dry_run"])
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_neither_is_named(tmp_path):
    with pytest.raises(InputError, match="neither a data set folder"):
        main(["--folder", str(tmp_path), "--repo_id", "me/toy"])
    with pytest.raises(InputError, match="no such folder"):
        main(["--folder", str(tmp_path / "nothing"), "--repo_id", "me/toy"])


def test_without_a_network_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    output = write(tmp_path / "toy")
    with pytest.raises(InputError, match="me/toy: ") as caught:
        main(["--folder", str(output), "--repo_id", "me/toy"])
    assert "\n" not in str(caught.value)
