"""What is read, marked, measured and written."""

import os
import subprocess
import sys

import numpy as np
import pytest
from looks import EVIL, make_rows, write

from syneg.commands.inspect import main
from syneg.errors import InputError
from syneg.inspect.marks import NEW, QUERY, SHARED, mark, overlap
from syneg.inspect.measures import measure_rows
from syneg.inspect.sample import read_sample
from syneg.rows import make_dropped, make_negative, make_row


def test_pairs_are_evenly_spaced_and_gates_are_counted(toy):
    sample = read_sample(toy, "train", shown=4, measured=10)
    assert [pair.query_id for pair in sample.shown[: sample.evenly]] == ["q0", "q10", "q20", "q30"]
    assert sample.total == 40
    assert sample.gates == {"length": 6, "copy": 2}
    assert len(sample.measured) == 10


def test_each_gate_has_examples_also_of_pairs_that_are_not_shown(toy):
    sample = read_sample(toy, "train", shown=4, measured=4)
    drops = [(pair.query_id, drop.gate) for pair in sample.shown for drop in pair.dropped]
    assert [gate for _, gate in drops].count("length") == 2
    assert ("q6", "copy") in drops
    assert sample.shown[0].dropped[0].reason == "too long", "it belongs to the pair that is shown"


def test_a_data_set_without_drops_or_other_splits(tmp_path):
    folder = write(tmp_path / "toy", list(make_rows(3)))
    assert read_sample(folder, "train", 100, 100).gates == {}
    with pytest.raises(InputError, match=r"unknown split.*'tran'.*'train'"):
        read_sample(folder, "tran", 1, 1)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("spec", ["nothing", "a/b/c", "./nothing"])
def test_what_is_no_data_set_is_named(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="neither a folder here nor a Hub id"):
        main([spec])
    with pytest.raises(InputError, match="no data set of ours"):
        main([str(tmp_path)])


def test_a_hub_out_of_reach_and_a_broken_shard_are_told_in_one_line(toy, monkeypatch):
    with pytest.raises(InputError, match=r"'a/b': cannot be read \(.*offline") as caught:
        main(["a/b", "--text"])
    assert "\n" not in str(caught.value)
    shard = next((toy / "default").iterdir())
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(InputError, match="toy': cannot be read") as caught:
        main([str(toy), "--text"])
    assert "\n" not in str(caught.value)


def joined(pieces, marks):
    return [piece.text for piece in pieces if marks in piece.marks.split()]


def test_marks():
    query = "where does the zebra drink"
    positive = "The zebra drinks cold water at the river."
    pieces = mark("A Zebra drinks cold water at the lake.", query, positive)
    assert "".join(piece.text for piece in pieces) == "A Zebra drinks cold water at the lake."
    assert joined(pieces, QUERY) == ["Zebra"]
    assert "".join(joined(pieces, SHARED)) == "Zebra drinks cold water at the"
    assert joined(pieces, NEW) == ["lake"]
    assert joined(mark("Bears like honey.", query, positive), NEW) == []
    long = mark("It drinks cold water. " + "Bears like honey. " * 20, query, positive)
    assert joined(long, SHARED) == ["drinks cold water"]
    assert joined(long, NEW) == [], "a document about something else"
    assert joined(mark("one of the many", query, "it is one of the few"), SHARED) != []
    assert joined(mark("is it for the", query, "what is it for the"), SHARED) == [], "stop words alone"
    assert joined(mark(positive, query), QUERY) == ["zebra"]
    assert mark("", query, positive) == []
    assert mark("word " * 5000, query)[-1].text.endswith("…")


def test_marks_in_scripts_without_blanks():
    query, positive = "電気ケトルの洗い方", "電気ケトルは酢を沸かして水垢を落とす。"
    text = "電気ケトルは酢を沸かして茶を入れる。"
    pieces = mark(text, query, positive)
    assert "".join(piece.text for piece in pieces) == text
    assert "".join(joined(pieces, QUERY)) == "電気ケトル"
    assert "".join(joined(pieces, SHARED)) == "電気ケトルは酢を沸かして"
    assert "".join(joined(pieces, NEW)) == "茶入れる"
    assert joined(mark("猫は魚を好む。", query, positive), QUERY) == []
    assert overlap(query, text) == pytest.approx(4 / 8)
    korean = mark("전기 주전자를 닦았다", "주전자 닦는 법", "주전자를 닦는다")
    assert "".join(joined(korean, QUERY)) == "주전자를"
    rows = [make_row("q", query, "p", positive, [make_negative("猫は魚を好む。", "bm25")])]
    length, overlaps = measure_rows(rows)
    assert [d.median for d in length.distributions] == [18, 6]
    assert [d.median for d in overlaps.distributions] == [pytest.approx(4 / 8), 0]


def test_overlap():
    assert overlap("where is the zebra", "A ZEBRA.") == pytest.approx(1 / 2)
    assert overlap("the", "x") == 0.0


def test_measures_by_source_against_the_positives():
    rows = [
        make_row(
            f"q{i}",
            "red apples",
            f"p{i}",
            "red apples are fruit",
            [
                make_negative("apples", "bm25", teacher_score=0.2, positive_teacher_score=0.9),
                make_negative(
                    "red apples grow on old trees", "synthetic", teacher_score=1, positive_teacher_score=0.5
                ),
            ],
        )
        for i in range(10)
    ]
    length, words, teacher = measure_rows(rows)
    assert [d.source for d in length.distributions] == ["positive", "synthetic", "bm25"]
    assert [(d.count, d.median, d.above) for d in length.distributions] == [
        (10, 4, None),
        (10, 6, 1.0),
        (10, 1, 0.0),
    ]
    assert [d.median for d in words.distributions] == [1.0, 1.0, 0.5]
    assert [(d.source, round(d.median, 3), d.above) for d in teacher.distributions] == [
        ("synthetic", 0.5, 1.0),
        ("bm25", -0.7, 0.0),
    ]
    for measure in (length, words, teacher):
        for distribution in measure.distributions:
            assert distribution.shares.sum() == pytest.approx(1.0)


def test_similarity_with_an_encoder():
    class Encoder:
        def encode_query(self, texts, **kwargs):
            return np.array([[1.0, 0.0]] * len(texts))

        def encode_document(self, texts, **kwargs):
            return np.array([[0.6, 0.8] if "Bears" in text else [0.8, 0.6] for text in texts])

    similarity = measure_rows(list(make_rows(3)), Encoder())[2]
    assert {d.source: (round(d.median, 3), d.above) for d in similarity.distributions} == {
        "positive": (0.8, None),
        "synthetic": (0.8, 0.0),
        "bm25": (0.6, 0.0),
        "dense": (0.8, 0.0),
    }


def test_the_page_is_one_file_without_references(toy, tmp_path, capsys):
    page = tmp_path / "out" / "page.html"
    main([str(toy), "--page", str(page), "--shown_pairs", "3"])
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "dropped by copy: equals the positive" in text
    assert "<th>auc</th><td>0.61</td>" in text
    assert "Open it in a browser" in capsys.readouterr().out
    main([str(toy), "--page", str(page)])  # a page of ours is written over


def test_a_file_that_is_not_ours_is_not_written_over(toy, tmp_path):
    (tmp_path / "thesis.html").write_text("<html>mine</html>")
    with pytest.raises(InputError, match="is no page of"):
        main([str(toy), "--page", str(tmp_path / "thesis.html")])
    with pytest.raises(InputError, match="is a folder"):
        main([str(toy), "--page", str(tmp_path)])
    with pytest.raises(InputError, match="must be 1 or more"):
        main([str(toy), "--shown_pairs", "0"])


def test_hostile_texts_are_escaped_everywhere(evil, tmp_path):
    main([str(evil), "--page", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text()
    body = text.split("</style>")[1]
    assert body.count("<script>") == 1
    for tag in ("<img", "<svg onload", "<iframe", "{{ 49 }}", "\x1b", "\u202e"):
        assert tag not in body
    assert "49" not in body.split("{{ 7 * 7 }}")[1][:10]


def test_text_for_a_terminal(toy, capsys):
    main([str(toy), "--text", "--shown_pairs", "2"])
    out = capsys.readouterr().out
    assert "toy-hardneg, train: 40 pairs" in out
    assert "synthetic            40" in out
    assert "query: where does zebra 20 drink" in out
    assert "[dropped by copy: equals the positive]" in out
    assert "reasoning: only the place of zebra 0 is changed" in out
    assert max(map(len, out.splitlines())) <= 110


def test_a_terminal_gets_no_escape_codes(evil, capsys):
    main([str(evil), "--text"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert EVIL[0] in out


def test_only_the_rows_that_are_shown_are_read(tmp_path):
    """Looking at few pairs of many takes hardly more memory than looking at few of few."""

    def rows(count):
        for i in range(count):
            negatives = [make_negative(f"{i} {j} " + "word " * 150, "bm25") for j in range(20)]
            yield make_row(f"q{i}", f"query {i}", f"p{i}", "positive", negatives)

    def lost(count):
        return (make_dropped(row, row["negatives"][0], "length", "long") for row in rows(count))

    code = """if True:
        import resource, sys
        from syneg.commands.inspect import main
        main([sys.argv[1], "--text", "--measured_pairs", "20"])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    peaks = []
    for count in (600, 12000):
        folder = write(tmp_path / str(count), rows(count), lost(count))
        result = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=os.environ
        )
        assert result.returncode == 0, result.stderr
        peaks.append(int(result.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 60, f"{peaks} MB; the larger data set has 190 MB of text"
