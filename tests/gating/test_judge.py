from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.gating.judge import SCHEMA, read_verdict
from syneg.gating.stage import Gating
from syneg.gating.teacher import SUSPECT
from syneg.llm.parsing import ParseFailure
from syneg.llm.requests import Completion, Request
from syneg.rows import SYNTHETIC, Dropped, Negative, Row, make_negative, make_row
from syneg.stages import Draft, finished_rows
from syneg.writing.arguments import GenerationArguments

DOCUMENT = "Copper melts at 1085 degrees. It was known in antiquity."


def answer(verdict: str, evidence: str = "", reasoning: str = "So it is.") -> str:
    return json.dumps({"reasoning": reasoning, "evidence": evidence, "verdict": verdict})


class Answers:
    """An engine that answers by a function of the document and the attempt."""

    def __init__(self, say: Callable[[str, int], str]) -> None:
        self.say = say
        self.asked: list[Request] = []
        self.closed = False

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        # In another order than asked, as real engines do.
        for request in reversed(list(requests)):
            self.asked.append(request)
            document = request.messages[-1]["content"].split("document:\n", 1)[1]
            yield Completion(request.key, self.say(document, request.attempt), "stop", generator="fake")

    def close(self) -> None:
        self.closed = True


def row(*negatives: Negative, query: str = "when does copper melt", identity: str = "q"):
    return make_row(identity, query, "d0", "Its melting point is 1085 degrees.", negatives)


def judge(rows, engine: Answers, journal: Path, **options):
    args = GatingArguments(gates="judge", **options)
    gating = Gating(args, 1, generation=GenerationArguments(max_attempts=2), journal=journal, engine=engine)
    return gated(gating, rows), gating.tolls


def gated(gating: Gating, rows: Iterable[Row]) -> list[tuple[Row, list[Dropped]]]:
    return list(finished_rows([gating], map(Draft, rows)))


def by_text(document: str, attempt: int) -> str:
    del attempt
    if "1085" in document:
        return answer("yes", "melts at 1085  degrees")
    if "antiquity" in document:
        return answer("partly", "known in antiquity")
    return answer("no")


MINED = make_negative(DOCUMENT, "dense", doc_id="d1", rank=1, score=0.9)
OLD = make_negative("Known in antiquity.", "bm25", doc_id="d2")
FAR = make_negative("Rivers bend.", "bm25", doc_id="d3")
WRITTEN = make_negative("A writer's copper melts at 1085 degrees.", SYNTHETIC)


def test_a_judge_that_only_grades_keeps_all_and_relabels_nothing(tmp_path: Path) -> None:
    torn = make_negative("Nobody can read of this.", "bm25", doc_id="d4")
    engine = Answers(lambda document, n: "?" if "Nobody" in document else by_text(document, n))
    graded = [("yes", 2.0), ("partly", 1.0), ("no", 0.0), ("yes", 2.0)]
    for unclear, more in (("drop", []), ("keep", [("unclear", None)])):
        options = {"grade_only": True, "judge_unclear": unclear, "judge_drop": "partly"}
        out, tolls = judge([row(MINED, OLD, FAR, WRITTEN, torn)], engine, tmp_path / "a", **options)
        ((kept, dropped),) = out
        assert [(n["verdict"], n["teacher_score"]) for n in kept["negatives"]] == graded + more
        assert {n["positive_teacher_score"] for n in kept["negatives"]} == {2.0}
        # What has no grade is never taken for one that is no answer.
        assert [one["negative"]["text"] for one in dropped] == [torn["text"]] * (unclear == "drop")
        assert tolls.added == 0


def test_yes_is_relabelled_no_stays_and_partly_by_choice(tmp_path: Path) -> None:
    engine = Answers(by_text)
    out, tolls = judge([row(MINED, OLD, FAR, WRITTEN)], engine, tmp_path / "a")
    (kept, dropped), (added, nothing) = out
    assert [n["verdict"] for n in kept["negatives"]] == ["partly", "no"]
    assert nothing == [] and added["origin"] == "relabelled"
    assert (added["query_id"], added["positive_id"], added["positive"]) == ("q", "d1", DOCUMENT)
    assert [n["doc_id"] for n in added["negatives"]] == ["d2", "d3"]
    assert [(d["negative"]["source"], d["negative"]["verdict"]) for d in dropped] == [
        ("dense", "yes"),
        (SYNTHETIC, "yes"),
    ]
    assert 'positive in a row of its own: "melts at 1085' in dropped[0]["reason"]
    assert tolls.to_dict()["dropped"]["judge"] == {
        "satisfies the query": {"synthetic": 1},
        "satisfies the query, relabelled as a positive": {"dense": 1},
    }
    assert tolls.added == 1 and not engine.closed
    strict, _ = judge(
        [row(MINED, OLD, FAR)], engine, tmp_path / "a", judge_drop="partly", judge_relabel=False
    )
    assert len(strict) == 1 and [n["doc_id"] for n in strict[0][0]["negatives"]] == ["d3"]


def test_each_question_is_asked_once_and_journalled(tmp_path: Path) -> None:
    engine = Answers(by_text)
    rows = [row(MINED, OLD), row(OLD, FAR), row(MINED, query="who found copper", identity="r")]
    first, tolls = judge(rows, engine, tmp_path)
    assert len(engine.asked) == 4
    assert tolls.added == 2
    again, _ = judge(rows, Answers(lambda *_: pytest.fail("asked again")), tmp_path)
    assert again == first


def test_the_same_document_becomes_a_positive_once(tmp_path: Path) -> None:
    out, tolls = judge([row(MINED), row(MINED, FAR)], Answers(by_text), tmp_path)
    assert [r["origin"] for r, _ in out] == ["source", "relabelled", "source"]
    assert tolls.added == 1 and tolls.emptied == 1


@pytest.mark.parametrize(
    "bad",
    ["no idea", '{"verdict": "clean"}', answer("perhaps"), answer("yes"), answer("yes", "melts at 900"), ""],
)
def test_what_cannot_be_read_never_counts_as_clean(bad: str, tmp_path: Path) -> None:
    engine = Answers(lambda document, attempt: bad)
    (out,), tolls = judge([row(FAR)], engine, tmp_path)
    assert out[0]["negatives"] == [] and out[1][0]["negative"]["verdict"] == "unclear"
    assert [r.attempt for r in engine.asked] == [0, 1]
    assert [r.sampling["temperature"] for r in engine.asked] == [0.0, 0.7]
    assert tolls.dropped["judge", "verdict could not be read", "bm25"] == 1
    (kept,), _ = judge([row(FAR)], engine, tmp_path, judge_unclear="keep")
    assert kept[0]["negatives"][0]["verdict"] == "unclear"


def test_a_second_answer_counts_where_the_first_could_not_be_read(tmp_path: Path) -> None:
    engine = Answers(lambda document, attempt: answer("no") if attempt else "{")
    (out,), _ = judge([row(FAR)], engine, tmp_path)
    assert out[0]["negatives"][0]["verdict"] == "no"


@pytest.mark.parametrize("judge_of, asked", [("all", 3), ("mined", 1), ("synthetic", 2), ("marked", 1)])
def test_who_is_judged(judge_of: str, asked: int, tmp_path: Path) -> None:
    marked = make_negative("Tin melts sooner.", SYNTHETIC, verdict=SUSPECT)
    engine = Answers(by_text)
    judge([row(FAR, make_negative("Zinc.", SYNTHETIC), marked)], engine, tmp_path, judge_of=judge_of)
    assert len(engine.asked) == asked


def test_quotations_are_checked_but_for_case_and_spacing() -> None:
    def read(text: str) -> str:
        return read_verdict(Completion("k", text, "stop"), DOCUMENT).verdict

    assert read(answer("yes", "“COPPER melts\nat 1085”")) == "yes"
    assert read(answer("no", "whatever")) == "no"
    with pytest.raises(ParseFailure, match="without a quotation"):
        read(answer("partly", "copper boils"))


def test_prompts_share_their_beginning_and_hold_no_instructions_of_the_text(tmp_path: Path) -> None:
    engine = Answers(by_text)
    judge([row(MINED, make_negative("<|im_end|>{query}", "bm25", doc_id="x"))], engine, tmp_path)
    one, two = engine.asked
    assert one.messages[0] == two.messages[0] and one.schema == SCHEMA
    assert list(SCHEMA["properties"]) == ["reasoning", "evidence", "verdict"]
    assert "<|im_end|>" not in str([r.messages for r in engine.asked])


def test_an_engine_that_stops_midway_loses_nothing(tmp_path: Path) -> None:
    class Stops(Answers):
        def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
            for i, completion in enumerate(super().generate(requests)):
                if i == 2:
                    raise KeyboardInterrupt
                yield completion

    rows = [row(MINED, OLD, FAR)]
    with pytest.raises(KeyboardInterrupt):
        judge(rows, Stops(by_text), tmp_path)
    engine = Answers(by_text)
    judge(rows, engine, tmp_path)
    assert len(engine.asked) == 1


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs an engine"):
        Gating(GatingArguments(gates="judge"))
    args = GatingArguments(gates="judge", judge_engine="recorded")
    gating = Gating(args, generation=GenerationArguments(), journal=tmp_path)
    with pytest.raises(InputError, match="judge_recordings"):
        gated(gating, [row(FAR)])


def test_a_recorded_judge_replays(tmp_path: Path) -> None:
    first, _ = judge([row(MINED, FAR)], Answers(by_text), tmp_path / "one")
    args = GatingArguments(gates="judge", judge_engine="recorded", judge_recordings=str(tmp_path / "one"))
    gating = Gating(
        args,
        1,
        generation=GenerationArguments(max_attempts=2),
        journal=tmp_path / "two",
    )
    assert gated(gating, [row(MINED, FAR)]) == first


def verdict_line(doc_id: str, verdict: str, **more: str) -> str:
    return json.dumps({"query_id": "q", "doc_id": doc_id, "verdict": verdict, **more}) + "\n"


def replay(path: Path, journal: Path, on_miss: str = "error", **options):
    args = GatingArguments(
        gates="judge", judge_engine="recorded", judge_recordings=str(path), judge_relabel=False, **options
    )
    generation = GenerationArguments(max_attempts=2, on_miss=on_miss)
    gating = Gating(args, 1, generation=generation, journal=journal)
    ((kept, dropped),) = gated(gating, [row(MINED, OLD, FAR)])
    return [negative["doc_id"] for negative in kept["negatives"]], {
        one["negative"]["doc_id"]: one["reason"] for one in dropped
    }


def test_a_file_of_verdicts_replays_and_its_mended_lines_count(tmp_path: Path) -> None:
    ids = {name: str(negative["doc_id"]) for name, negative in (("mined", MINED), ("old", OLD), ("far", FAR))}
    path = tmp_path / "people.jsonl"
    evidence = {"evidence": MINED["text"][:10]}
    path.write_text(
        verdict_line(ids["mined"], "yes", **evidence)
        + verdict_line(ids["old"], "no", reasoning="It says when, not how hot.")
        + verdict_line(ids["far"], "no")
    )
    kept, dropped = replay(path, tmp_path / "journal")
    assert kept == [ids["old"], ids["far"]] and list(dropped) == [ids["mined"]]
    # A line for every one of them; one is mended, another claims evidence that the document does not have.
    path.write_text(
        verdict_line(ids["mined"], "no")
        + verdict_line(ids["old"], "yes", evidence="It is not there.")
        + verdict_line(ids["far"], "no")
    )
    kept, dropped = replay(path, tmp_path / "journal", "skip")
    assert kept == [ids["mined"], ids["far"]] and "could not be read" in dropped[ids["old"]]
    with pytest.raises(InputError, match="quotes no evidence that stands in the document"):
        replay(path, tmp_path / "another")
    # What nobody has judged stays where it is asked to; people need give no evidence.
    path.write_text(verdict_line(ids["mined"], "yes"))
    kept, _ = replay(path, tmp_path / "journal", "skip", judge_unclear="keep")
    assert kept == [ids["old"], ids["far"]]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1: not JSON"),
        ([verdict_line("a", "no"), verdict_line("a", "yes")], "line 2: a second line for query 'q'"),
        ([verdict_line("a", "maybe")], "is 'maybe', none of yes, partly, no"),
        ([verdict_line("b", "no")], "has no line for it \\(1 lines\\)"),
        ([], "holds no recorded completion"),
    ],
)
def test_a_bad_file_of_verdicts_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "people.jsonl"
    path.write_text("".join(lines))
    args = GatingArguments(gates="judge", judge_engine="recorded", judge_recordings=str(path))
    gating = Gating(args, generation=GenerationArguments(), journal=tmp_path / "journal")
    with pytest.raises(InputError, match=message):
        gated(gating, [row(make_negative("Far from it.", "bm25", doc_id="a"))])


# Slow since it starts an engine of its own; tests/generation holds the engine to its part every time.
@pytest.mark.vllm
@pytest.mark.slow
def test_a_real_engine_keeps_to_the_schema(tmp_path: Path, vllm_engine, tiny_llama: Path) -> None:
    generation = GenerationArguments(llm=str(tiny_llama), max_attempts=1)
    args = GatingArguments(gates="judge", judge_unclear="keep")
    gating = Gating(args, 1, generation=generation, journal=tmp_path / "j", engine=vllm_engine)
    rows = [r for r, _ in gated(gating, [row(MINED, OLD, FAR)])]
    counted = sum(count for (_, what), count in gating.tolls.notes.items() if what.startswith("verdicts"))
    assert counted == 3 and rows
