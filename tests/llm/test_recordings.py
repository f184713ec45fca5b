from __future__ import annotations

import json
from pathlib import Path

import pytest

import syneg.demo
from syneg.errors import InputError
from syneg.sources import Pair, load_source
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import negatives_of
from tests.llm.engines import ScriptedEngine, written_by


def write(path: Path, records: list) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def record(pair: Pair, text: str = "written", **more: str) -> dict:
    return {
        "query_id": pair.query_id,
        "positive_id": pair.positive_id,
        "domain": "D",
        "difficulty": "easy",
        "length": "short",
        "reasoning": "why",
        "text": text,
        **more,
    }


def recorded(path: Path, **more) -> GenerationArguments:
    return GenerationArguments(engine="recorded", recordings=str(path), **more)


def test_lines_become_negatives_through_the_same_path(pairs, tmp_path):
    path = write(tmp_path / "r.jsonl", [record(p, f"t {p.query_id}", mirror_query="m") for p in pairs])
    report = negatives_of(pairs, recorded(path), tmp_path / "j", 0, progress=False).run()
    assert (report.kept, report.missing, report.changed, report.skipped) == (6, 0, 0, 0)
    found = list(written_by(pairs, recorded(path), tmp_path / "j", 0))
    negative = found[2].negatives[0]
    assert negative["text"] == "t q2" and negative["generator"] == "recorded:r"
    assert (negative["domain"], negative["difficulty"], negative["length"]) == ("D", "easy", "short")
    assert found[2].mirrors == ["m"]
    prompt = found[2].outcomes[0].attempts[0].request.messages[1]["content"]
    assert "You are an expert in D." in prompt and pairs[2].query in prompt


def test_changed_missing_and_unrecorded_are_counted(pairs, tmp_path):
    lines = [
        record(pairs[0], query=pairs[0].query),
        record(pairs[1], query="it was another one"),
        record(Pair("gone", "", "gone", "")),
    ]
    path = write(tmp_path / "r.jsonl", lines)
    with pytest.raises(InputError, match=r"not recorded: query 'q2'.*--on_miss skip"):
        negatives_of(pairs, recorded(path), tmp_path / "j", 0, progress=False).run()
    report = negatives_of(pairs, recorded(path, on_miss="skip"), tmp_path / "j", 0, progress=False).run()
    assert (report.kept, report.changed, report.missing, report.skipped) == (1, 1, 1, 4)
    assert report.run.from_journal == 1, "what was journalled before the error stays"


def test_the_slots_of_a_pair_are_its_lines_in_order(pairs, tmp_path):
    path = write(tmp_path / "r.jsonl", [record(pairs[0], f"text {i}") for i in range(3)])
    args = recorded(path, slots=2)
    negatives_of(pairs[:1], args, tmp_path / "j", 0, progress=False).run()
    (result,) = written_by(pairs[:1], args, tmp_path / "j", 0)
    assert [n["text"] for n in result.negatives] == ["text 0", "text 1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{nonsense", "line 2: not JSON"),
        ("[]", "line 2: expected a JSON object, found a list"),
        ('{"query_id": "q"}', "line 2: 'positive_id' is missing"),
        ('{"query_id": "q", "positive_id": 3, "text": ""}', "line 2: 'positive_id' must be a string"),
    ],
)
def test_a_malformed_line_is_named(pairs, tmp_path, line, message):
    path = write(tmp_path / "r.jsonl", [record(pairs[0])])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=message):
        negatives_of(pairs, recorded(path), tmp_path / "j", 0, progress=False).run()


def test_lines_hold_one_negative_each(pairs, tmp_path):
    path = write(tmp_path / "r.jsonl", [record(p) for p in pairs])
    with pytest.raises(InputError, match="leave --negatives_per_request at 1"):
        negatives_of(pairs, recorded(path, slots=2, negatives_per_request=2), tmp_path / "j", 0).run()


def test_no_recordings(pairs, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "folder").mkdir()
    for recordings, message in [
        (None, "needs --recordings"),
        (str(tmp_path / "nowhere"), "no such file"),
        (str(tmp_path / "empty.jsonl"), "holds no recorded completion"),
        (str(tmp_path / "folder"), "holds no completion"),
    ]:
        with pytest.raises(InputError, match=message):
            args = GenerationArguments(engine="recorded", recordings=recordings)
            negatives_of(pairs, args, tmp_path / "j", 0, progress=False).run()


def test_a_journal_replays_with_its_retries(pairs, tmp_path):
    def answer(request):
        from tests.llm.engines import good_text

        return "no" if request.attempt == 0 and request.query_id in ("q1", "q2") else good_text(request)

    args = GenerationArguments(slots=2)
    first = negatives_of(pairs, args, tmp_path / "a", 3, engine=ScriptedEngine(answer), progress=False).run()
    again = recorded(tmp_path / "a", slots=2)
    second = negatives_of(pairs, again, tmp_path / "b", 3, progress=False).run()
    assert first.completions == second.completions == 16
    assert [r.negatives for r in written_by(pairs, args, tmp_path / "a", 3)] == [
        r.negatives for r in written_by(pairs, again, tmp_path / "b", 3)
    ]
    with pytest.raises(InputError, match=r"temperature was 0.8, is 0.1"):
        negatives_of(
            pairs, recorded(tmp_path / "a", temperature=0.1), tmp_path / "c", 3, progress=False
        ).run()


def test_a_journal_made_from_lines_replays_with_their_attributes(pairs, tmp_path):
    path = write(tmp_path / "r.jsonl", [record(p) for p in pairs])
    negatives_of(pairs, recorded(path), tmp_path / "a", 0, progress=False).run()
    report = negatives_of(pairs, recorded(tmp_path / "a"), tmp_path / "b", 0, progress=False).run()
    assert report.kept == 6
    (result, *_) = written_by(pairs, recorded(tmp_path / "a"), tmp_path / "b", 0)
    assert result.negatives[0]["domain"] == "D"


def test_the_recordings_that_ship_can_be_read(tmp_path):
    path = Path(syneg.demo.__file__).parent / "pydocs-train.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [Pair(r["query_id"], r["query"], r["positive_id"], "the positive") for r in lines]
    report = negatives_of(pairs, recorded(path), tmp_path, 0, progress=False).run()
    assert report.kept == len(lines) == 480


@pytest.mark.shared
def test_scifact(tmp_path):
    shared = Path(__file__).parents[2].parent / "shared"
    if not shared.is_dir():
        pytest.skip(f"{shared} with data/scifact and recordings/ is not there")
    pairs = load_source(shared / "data" / "scifact").pairs("train")
    args = recorded(shared / "recordings" / "scifact-train.jsonl")
    report = negatives_of(pairs, args, tmp_path, 0, progress=False).run()
    assert report.kept == 919 and report.missing == 0
    assert all(r.mirrors[0] for r in written_by(pairs, args, tmp_path, 0))
