from __future__ import annotations

import pytest

from syneg.commands.evaluate import main
from syneg.errors import InputError


def test_the_command(encoder, source, tmp_path, capsys):
    encoder.save(str(tmp_path / "tiny"))
    source.save(tmp_path / "food")
    model, where = str(tmp_path / "tiny"), str(tmp_path / "food")
    main(["--model", model, "--source", where, "--output", str(tmp_path / "out")])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split("|")[1].strip() == "task" and printed[2].startswith("| food, test |")
    assert (tmp_path / "out/table.md").read_text().splitlines() == printed[:3]
    assert len(list((tmp_path / "out/results/local__tiny").glob("*/food.json"))) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nowhere/a/b"], "no such folder"),
        ([], "required: --model"),
        (["--model", "m", "--splt", "test"], "Did you mean '--split'"),
        (["--model", "m", "--eval_batch_size", "0"], "must be 1 or more"),
        (["--model", "m", "--source", "./nowhere"], "source './nowhere': no such folder"),
        (["--model", "m", "--tasks", "SciFacts,STS12"], "Did you mean 'SciFact'"),
    ],
)
def test_unusable_words(words, message, tmp_path, source):
    source.save(tmp_path / "food")
    defaults = [] if "--source" in words else ["--source", str(tmp_path / "food")]
    with pytest.raises(InputError, match=message):
        main([*words, *defaults, "--output", str(tmp_path / "out")])
