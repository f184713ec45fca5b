"""The page in a real browser: filters work, passages stay texts, nothing is asked of the network."""

import json
import shlex
import time

import pytest
from looks import EVIL, make_rows, write

from syneg.commands.inspect import main
from syneg.gating.judge import document_key
from syneg.gating.verdicts import RecordedVerdicts
from syneg.rows import make_negative, make_row

VISIBLE = """
return [...document.querySelectorAll('.negative')]
  .filter((n) => !n.hidden && !n.closest('article').hidden)
  .map((n) => [n.dataset.source, n.dataset.gate, n.dataset.difficulty, n.innerText])
"""
SET = """
const element = document.querySelector(arguments[0]);
if (typeof arguments[1] === 'boolean') element.checked = arguments[1]; else element.value = arguments[1];
element.dispatchEvent(new Event('input', {bubbles: true}));
"""


@pytest.fixture
def open_page(browser, tmp_path):
    def open_it(folder, *more):
        page = tmp_path / "page.html"
        main([str(folder), "--page", str(page), *more])
        browser.log()
        browser.open(page)
        browser.run("localStorage.clear(); location.reload()")  # verdicts of other tests
        return browser

    return open_it


CLICK = """
const [key, verdict] = arguments;
const card = [...document.querySelectorAll('.negative')].find((n) => n.innerText.includes(key));
card.querySelector(`.verdict button[value=${verdict}]`).click();
"""
PRESSED = """
return [...document.querySelectorAll('.verdict [aria-pressed=true]')]
  .map((b) => [b.closest('.negative').querySelector('.text').textContent, b.value])
"""


@pytest.fixture
def scored(tmp_path):
    """Rows with a teacher's scores: row i's synthetic negative is i/10 above its positive."""
    rows = []
    for i, row in enumerate(make_rows(6)):
        for negative, margin in zip(row["negatives"], (i / 10, -0.5, None), strict=True):
            if margin is not None:
                negative["teacher_score"], negative["positive_teacher_score"] = 0.25 + margin, 0.25
        rows.append(row)
    return write(tmp_path / "scored", rows, version="1.0.0")


def downloaded(page, folder):
    """Clicks the page's button and returns what it saves."""
    folder.mkdir()
    page.devtools("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.run("document.getElementById('download').click()")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = [path for path in folder.iterdir() if path.suffix == ".jsonl"]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("nothing was downloaded")


def test_filters_hide_and_show(open_page, toy):
    page = open_page(toy)
    assert len(page.run(VISIBLE)) == 40 * 3 + 8
    page.run(SET, "[name=source][value=bm25]", False)
    assert {source for source, *_ in page.run(VISIBLE)} == {"synthetic", "dense"}
    page.run(SET, "[name=source][value=bm25]", True)
    page.run(SET, "#gate", "length")
    assert {(source, gate) for source, gate, *_ in page.run(VISIBLE)} == {("synthetic", "length")}
    assert page.run("return document.querySelectorAll('article:not([hidden])').length") == 6
    page.run(SET, "#gate", "")
    assert {gate for _, gate, *_ in page.run(VISIBLE)} == {""}
    page.run(SET, "#difficulty", "foundational")
    assert {level for *_, level, _ in page.run(VISIBLE)} == {"foundational"}
    assert len(page.run(VISIBLE)) == 20
    page.run(SET, "#difficulty", "*")
    page.run(SET, "#gate", "*")
    page.run(SET, "#words", "ZEBRA 17 drink")
    assert len(page.run(VISIBLE)) == 3
    assert "1 of 40 pairs" in page.run("return document.getElementById('count').textContent")
    page.run(SET, "#words", "no such words")
    assert page.run(VISIBLE) == []
    assert not page.run("return document.getElementById('none').hidden")


def test_marks_can_be_switched_off(open_page, toy):
    page = open_page(toy)
    style = """
        const elements = [...document.querySelector('.negative').querySelectorAll('.s')];
        const text = elements.map((element) => element.textContent).join('');
        return [text, getComputedStyle(elements[0]).backgroundColor];
    """
    text, shown = page.run(style)
    assert "drinks cold water at the" in text
    page.run(SET, "[name=mark][value=s]", False)
    assert page.run(style)[1] != shown


def test_what_is_side_by_side_is_side_by_side(open_page, toy):
    page = open_page(toy)
    boxes = page.run(
        """
        return [...document.querySelector('article').querySelectorAll('.document')]
          .map((element) => element.getBoundingClientRect().toJSON())
        """
    )
    positive, first, second = boxes[:3]
    assert positive["right"] < first["left"] < first["right"] < second["left"]
    assert abs(positive["top"] - first["top"]) < 2
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


def test_the_page_asks_nothing_of_the_network_and_breaks_no_rule_of_its_own(open_page, toy):
    page = open_page(toy)
    assert page.run("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []
    assert page.log() == []
    assert page.run("return getComputedStyle(document.querySelector('.pair')).display") == "grid"


def test_a_passage_cannot_run_a_script(open_page, evil):
    page = open_page(evil)
    assert page.run("return window.pwned") is None
    # Also not when it is touched.
    page.run(SET, "#words", "negative")
    page.run("document.querySelectorAll('*').forEach((element) => element.focus && element.focus())")
    assert page.run("return window.pwned") is None
    strange = "return document.querySelectorAll('main img, main iframe, main script, [onload]').length"
    assert page.run(strange) == 0
    assert page.run("return document.scripts.length") == 1
    shown = page.run("return document.body.innerText")
    assert "query <script>window.pwned = 1</script>" in shown
    assert "{{ 7 * 7 }}" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert page.log() == []
    assert len(page.run(VISIBLE)) == 16


def test_a_script_that_got_in_would_not_run(browser, evil, tmp_path):
    """The second wall: with the first one broken by hand, the page's policy still holds."""
    page = tmp_path / "page.html"
    main([str(evil), "--page", str(page)])
    text = page.read_text()
    wall = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
    page.write_text(text.replace("<main>", "<main>" + wall))
    browser.open(page)
    assert browser.run("return document.scripts.length") == 2
    assert browser.run("return window.pwned") is None
    assert any("Content Security Policy" in message for message in browser.log())
    page.write_text(text.replace("<main>", "<main>" + wall).replace("Content-Security-Policy", "x"))
    browser.open(page)
    assert browser.run("return window.pwned") == 1, "the test itself does not notice a script"


def test_verdicts_are_downloaded_as_the_judge_reads_them(open_page, scored, tmp_path):
    page = open_page(scored)
    assert page.run("return document.getElementById('download').disabled")
    page.run(CLICK, "zebra number 3 drinks cold water at the lake", "yes")
    page.run(CLICK, "Bears like honey, says book 2.", "partly")
    page.run(CLICK, "Rivers carry 1 stones.", "yes")
    page.run(CLICK, "Rivers carry 1 stones.", "no")  # another thought
    page.run(CLICK, "Rivers carry 5 stones.", "no")
    page.run(CLICK, "Rivers carry 5 stones.", "no")  # taken back
    assert page.run("return document.getElementById('download').textContent") == "download verdicts (3)"
    path = downloaded(page, tmp_path / "downloads")
    assert path.name == "verdicts-train.jsonl"
    rows = list(make_rows(6))
    lines = {
        (r["query_id"], r["doc_id"]): r["verdict"] for r in map(json.loads, path.read_text().splitlines())
    }
    assert lines == {
        ("q3", document_key(rows[3]["negatives"][0])): "yes",
        ("q2", "d2"): "partly",
        ("q1", "e1"): "no",
    }
    verdicts = RecordedVerdicts(path)
    assert verdicts._lines.lines == 3
    verdicts.close()
    assert page.log() == []


def test_the_gate_takes_what_a_person_judged(open_page, scored, tmp_path, capsys, monkeypatch):
    """By the command that `syneg inspect` ends with."""
    from syneg.commands.gate import main as gate
    from syneg.hub.folders import load_split

    page = open_page(scored)
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    for i in range(2, 6):
        page.run(CLICK, f"zebra number {i} drinks cold water at the lake", "yes" if i == 3 else "no")
    path = downloaded(page, tmp_path / "downloads")
    monkeypatch.chdir(path.parent)
    assert command[:2] == ["syneg", "gate"]
    gate(command[2:])
    dropped = load_split("judged", "dropped")
    assert [(row["query_id"], row["gate"]) for row in dropped] == [("q3", "judge")]
    written = [n for row in load_split("judged") for n in row["negatives"] if n["source"] == "synthetic"]
    assert [negative["verdict"] for negative in written] == ["unclear", "unclear", "no", "no", "no"]


def test_verdicts_outlast_the_page_until_they_are_forgotten(open_page, scored):
    page = open_page(scored)
    page.run(CLICK, "Rivers carry 4 stones.", "partly")
    page.run("location.reload()")
    assert page.run(PRESSED) == [["Rivers carry 4 stones.", "partly"]]
    page.run("window.confirm = () => true; document.getElementById('forget').click()")
    assert page.run(PRESSED) == []
    page.run("location.reload()")
    assert page.run(PRESSED) == []


def test_ids_come_out_as_they_went_in(open_page, tmp_path):
    rows = [
        make_row(
            f"q{i}\r\n\t{text}", "query", f"p{i}", "positive", [make_negative(f"n{i}", "bm25", doc_id=text)]
        )
        for i, text in enumerate([*EVIL, "e\u0301", "\u00e9", "a  b", "\x00"])
    ]
    page = open_page(write(tmp_path / "strange", rows))
    page.run("document.querySelectorAll('.verdict button[value=no]').forEach((button) => button.click())")
    path = downloaded(page, tmp_path / "downloads")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["query_id"], line["doc_id"]) for line in lines] == [
        (row["query_id"], row["negatives"][0]["doc_id"]) for row in rows
    ]


def test_what_is_most_suspect_comes_first(open_page, scored):
    page = open_page(scored)
    order = "return [...document.querySelectorAll('article h3')].map((h) => h.textContent.match(/\\d+/)[0])"
    sources = "return [...document.querySelectorAll('article .negative')].map((n) => n.dataset.source)"
    assert page.run(order) == list("012345")
    page.run(SET, "#order", "suspect")
    assert page.run(order) == list("543210")
    assert page.run(sources)[:3] == ["synthetic", "bm25", "dense"], "what has no score comes last"
    page.run(SET, "#gate", "")
    page.run(SET, "[name=source][value=synthetic]", False)
    assert page.run(order) == list("012345"), "all are as suspect now: as in the data set"
    page.run(SET, "[name=source][value=synthetic]", True)
    page.run(SET, "#order", "")
    assert page.run(order) == list("012345")
    assert page.run("return document.querySelectorAll('.negative .above').length") == 5
    assert "teacher score 0.75 (positive 0.25)" in page.run(
        "return document.body.innerText.replace(/\\s+/g, ' ')"
    )


def test_the_page_opens_with_what_matters_most(open_page, scored, toy, capsys):
    headline = "return document.querySelector('header .headline').textContent"
    assert open_page(scored).run(headline) == (
        "83% of the synthetic negatives score above their positive by the teacher; 0% of the bm25 ones."
    )
    assert "have more of the query's words than their positive" in open_page(toy).run(headline)


def test_keys_go_from_row_to_row(open_page, scored):
    page = open_page(scored)
    at = (
        "return [document.activeElement.querySelector?.('h3')?.textContent.match(/\\d+/)?.[0], location.hash]"
    )
    ids = page.run("return [...document.querySelectorAll('article')].map((a) => '#' + a.id)")
    page.press("j")
    assert page.run(at) == ["0", ids[0]]
    page.press("jj")
    assert page.run(at) == ["2", ids[2]]
    top = page.run("return document.activeElement.getBoundingClientRect().top")
    assert page.run("return document.querySelector('nav').getBoundingClientRect().bottom") <= top + 1
    page.press("k")
    assert page.run(at) == ["1", ids[1]]
    page.run(SET, "#words", "zebra 4")
    page.run("document.getElementById('words').focus()")
    page.press("j")
    assert page.run("return document.activeElement.id") == "words", "a letter in a text is a letter"


def test_a_row_has_an_address(open_page, scored, tmp_path):
    page = open_page(scored)
    address = page.run("return document.querySelectorAll('.address')[4].href")
    page.run("location.href = arguments[0]; location.reload()", address)
    top = page.run("return document.querySelector('article.current').getBoundingClientRect().top")
    assert page.run("return document.querySelector('article.current h3').textContent").startswith(
        "where does zebra 4 drink"
    )
    assert 0 <= top < 1000
    main([str(scored), "--page", str(tmp_path / "again.html"), "--shown_pairs", "3"])
    assert f'id="{address.rpartition("#")[2]}"' in (tmp_path / "again.html").read_text()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(open_page, scored, toy, width, dark):
    page = open_page(scored)
    try:
        for folder in (scored, toy):
            page.view(width, 900, dark)
            open_page(folder)
            page.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
            assert page.run("return innerWidth") == width
            assert page.cut_off() == []
            paper = page.run("return getComputedStyle(document.body).backgroundColor")
            assert (paper == "rgb(255, 255, 255)") is not dark
            lefts = page.run(
                """
                return [...document.querySelectorAll('.measures section')]
                  .map((section) => section.getBoundingClientRect().left)
                """
            )
            assert len(set(lefts)) == (2 if width == 1280 else 1), "columns of charts"
    finally:
        page.devtools("Emulation.clearDeviceMetricsOverride")
        page.devtools("Emulation.setEmulatedMedia", features=[])
