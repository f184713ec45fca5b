"""The page in a real browser: filters work, passages stay texts, nothing is asked of the network."""

import pytest

from syneg.commands.inspect import main

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
        return browser

    return open_it


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
