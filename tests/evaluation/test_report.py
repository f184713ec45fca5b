from __future__ import annotations

import dataclasses
import math
from html.parser import HTMLParser

import pytest
from datasets import Dataset

from syneg.commands.report import main
from syneg.errors import InputError
from syneg.evaluation.comparison import Comparison, Run
from syneg.evaluation.metrics import QueryScores
from syneg.evaluation.report.charts import make_axis
from syneg.evaluation.report.page import conclusion, query_examples, render, training_plots
from syneg.evaluation.significance import Difference
from syneg.evaluation.summary import Line, summarise
from syneg.evaluation.work import mean_series, run_time, training_courses, work_of, work_table
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source

from .conftest import make_source

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"


def make_run(arm: str, seed: int | None, scores: dict[str, float], retrieved: list[str], **work) -> Run:
    queries = [QueryScores(q, s, s, s, retrieved) for q, s in scores.items()]
    mean = sum(scores.values()) / len(scores)
    defaults = {
        "steps": 10,
        "rows": 4,
        "instances": 40,
        "negatives": {"dense": 80},
        "fallback": {},
        "missing": 0,
    }
    history = [{"step": step, "loss": 1 / step, "dense_mass": 0.1 * step} for step in (1, 5, 10)]
    return Run(
        arm,
        seed,
        dict.fromkeys(("ndcg_at_10", "recall_at_10", "mrr_at_10"), mean),
        queries,
        history,
        defaults | {"train_seconds": 1.0, "evaluate_seconds": 1.0} | work,
    )


def make_comparison() -> Comparison:
    queries = ("q0", "q1", "q2", "q3")
    before = dict(zip(queries, (0.2, 0.4, 0.6, 0.8), strict=True))
    base = dict(zip(queries, (0.3, 0.4, 0.6, 0.8), strict=True))
    ours = dict(zip(queries, (0.9, 0.5, 0.1, 0.8), strict=True))
    settings = {
        "source": "food",
        "split": "test",
        "held_back": 0.0,
        "model": "m",
        "dataset": "d",
        "training": {"learning_rate": 1e-5},
        "arms": {"dense": {"mixture": "dense=2"}, "hybrid": {"mixture": "synthetic=1,dense=1"}},
        "seeds": [0, 1],
        "baseline": "dense",
        "metric": "ndcg_at_10",
    }
    arms = {
        "dense": [make_run("dense", seed, base, ["d1", "d0"]) for seed in (0, 1)],
        "hybrid": [make_run("hybrid", seed, ours, ["d0", "d1"], steps=12) for seed in (0, 1)],
    }
    return Comparison(
        settings, make_run("zero-shot", None, before, ["d2", "d3"]), arms, [("x", 1), ("dense", 3)]
    )


class Page(HTMLParser):
    """What a page would load or run, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data):
        self.text += data


def test_the_page_stands_alone_and_shows_the_figures():
    html = render(make_comparison(), make_source())
    page = Page(html)
    assert "script" not in page.tags and page.links == []
    # dense 0.525, hybrid 0.575; the queries' differences are +.6 +.1 -.5 0.
    words = " ".join(page.text.split())
    assert "0.5250 ± 0.0000" in words and "0.5750 ± 0.0000" in words
    assert "+0.0500" in words and "2 : 1" in words and "2 of 2" in words
    assert "hybrid against dense: 2 won, 1 lost, 1 equal" in words
    assert "dense against zero-shot: 1 won, 0 lost, 3 equal" in words
    assert "Not the same number of steps: dense 10, hybrid 12." in words
    assert "Not finished: dense (seed 3)." in words and "Not run: x." in words
    assert page.tags.count("polyline") == 4
    assert words.count("0.100, 0.500, 1.000") == 2


def test_wins_and_losses_are_ordered_by_their_size():
    dense, hybrid = query_examples(make_comparison(), make_source(), 1)
    assert (dense.arm, dense.against) == ("dense", "zero-shot")
    assert [round(e.change, 6) for e in hybrid.wins] == [0.6]
    assert [round(e.change, 6) for e in hybrid.losses] == [-0.5]
    win = hybrid.wins[0]
    assert win.query == "apple" and [d.text for d in win.relevant] == ["apple apple apple"]
    assert [(d.id, d.relevant) for d in win.before] == [("d1", False), ("d0", True)]
    assert [(d.id, d.relevant) for d in win.after] == [("d0", True), ("d1", False)]


def test_texts_are_data():
    source = make_source()
    corpus = [{**row, "title": EVIL} for row in source.corpus]
    queries = [{**row, "text": EVIL} for row in source.queries]
    evil = Source(
        EVIL,
        Dataset.from_list(corpus, features=CORPUS_FEATURES),
        Dataset.from_list(queries, features=QUERY_FEATURES),
        source.qrels,
    )
    comparison = make_comparison()
    comparison.settings.update(
        source=EVIL, model=EVIL, dataset=EVIL, arms={"dense": {EVIL: EVIL}, "hybrid": {}}
    )
    page = Page(render(comparison, evil))
    assert "script" not in page.tags and "img" not in page.tags
    assert page.text.count(EVIL) > 10


def test_without_a_finished_baseline_nothing_is_tested():
    comparison = make_comparison()
    comparison = dataclasses.replace(comparison, arms={"hybrid": comparison.arms["hybrid"]})
    words = " ".join(Page(render(comparison, make_source())).text.split())
    assert "hybrid against zero-shot" in words and "for the 0 comparisons" in words


def test_work_is_averaged_over_an_arms_runs():
    comparison = make_comparison()
    dense, hybrid = work_of(comparison)
    assert (dense.rows, dense.steps, hybrid.steps) == ("4", "10", "12")
    assert dense.negatives == {"dense": 2.0}
    # Logged at steps 1, 5 and 10 as 0.1 a step; the gradient's variance was not logged.
    assert training_courses(comparison)["dense"] == {"dense_mass": pytest.approx((0.1, 0.5, 1.0))}
    assert run_time(comparison) == "4 runs, 0 minutes of training and evaluation."
    head, _, first, second = work_table(comparison).splitlines()
    assert [cell.strip() for cell in head.split("|")][-3:-1] == [
        "softmax mass of dense",
        "variance of the gradient",
    ]
    assert "0.100, 0.500, 1.000" in first and "dense 2.00" in first and "12" in second


def test_curves_are_means_over_seeds():
    histories = [
        [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 3.0}],
        [{"step": 1, "loss": 2.0}, {"step": 3, "loss": math.nan}],
    ]
    assert mean_series(histories, "loss") == [(1, 1.5), (2, 3.0)]
    plots = training_plots(make_comparison(), {"dense": 0, "hybrid": 1})
    assert [plot.title for plot in plots] == ["Loss", "Softmax mass of dense negatives"]
    first = plots[0].curves[0].points.split()
    assert [float(p.split(",")[0]) for p in first] == [plots[0].x(step) for step in (1, 5, 10)]
    # The loss falls, so the line goes down: towards larger y.
    heights = [float(p.split(",")[1]) for p in first]
    assert heights == sorted(heights)


def test_the_page_opens_with_what_differs_by_how_much_and_how_sure():
    comparison = make_comparison()
    first, second = conclusion(comparison, summarise(comparison))
    # Four queries, +.6 +.1 -.5 0: a mean of .05, and nothing that a test could be sure of.
    assert first.startswith("hybrid scores 0.0500 nDCG@10 above dense (95% interval -")
    assert first.endswith("4 queries): it may be chance.")
    assert second.startswith("dense scores 0.0250 nDCG@10 above the model before training (95% interval ")
    words = " ".join(Page(render(comparison, make_source())).text.split())
    assert words.index(first) < words.index("Results")
    assert "\u0394 vsdense" in words and "lessdense" not in words  # a line break is between them


def line(arm, mean, p):
    return Line(arm, {}, {}, {}, Difference(mean, mean - 0.01, mean + 0.01, p, 90, 9, 1), p, None)


def test_of_several_arms_the_best_of_those_that_are_sure_is_named():
    comparison = make_comparison()
    base = Line("dense", {}, {}, {}, None, None, None)
    lines = [line("zero-shot", -0.2, 0.0001), base]
    lines += [line("lucky", 0.09, 0.3), line("good", 0.05, 0.01), line("fair", 0.02, 0.02)]
    assert conclusion(comparison, lines) == [
        "2 of the 3 other arms differ from dense by more than chance would make.",
        "good scores 0.0500 nDCG@10 above dense (95% interval +0.0400 to +0.0600, p = 0.010, 100 queries).",
        "dense scores 0.2000 nDCG@10 above the model before training "
        "(95% interval +0.1900 to +0.2100, p < 0.001, 100 queries).",
    ]
    assert "None of the 2 other arms differs" in conclusion(comparison, [*lines[:3], line("x", -0.1, 0.2)])[0]
    assert conclusion(comparison, lines[2:]) == [
        "Nothing is tested: the baseline, dense, has no finished run."
    ]


def test_what_was_logged_once_is_a_dot():
    comparison = make_comparison()
    for run in comparison.arms["dense"]:
        run.history[:] = [{"step": 1, "loss": 0.5}]
    loss, mass = training_plots(comparison, {"dense": 0, "hybrid": 1})
    assert [curve.dot for curve in loss.curves] == [(loss.x(1), loss.y(0.5)), None]
    assert [curve.arm for curve in mass.curves] == ["hybrid"]
    page = Page(render(comparison, make_source()))
    assert page.tags.count("polyline") == 2
    assert page.text.count("dense: 0.5, logged once") == 1


def test_what_was_measured_on_the_way_is_drawn_over_the_epochs():
    comparison = make_comparison()
    for arm, runs in comparison.arms.items():
        for run in runs:
            run.history[len(run.history) :] = [
                {"step": 5 * e, "epoch": e, "eval_held_out_cosine_ndcg@10": 0.5 + e / 10, "eval_runtime": 1.0}
                for e in (1, 2, 3)
                if arm == "hybrid"
            ]
    *_, last = training_plots(comparison, {"dense": 0, "hybrid": 1})
    assert last.title == "nDCG@10 on held-out queries" and last.meaning.endswith("by epoch.")
    # What was measured on the way is drawn whoever wrote the queries of the evaluation.
    written = dataclasses.replace(comparison, settings={**comparison.settings, "written": "written"})
    assert written.heading == "nDCG@10 (written)"
    assert training_plots(written, {"dense": 0, "hybrid": 1}) == training_plots(
        comparison, {"dense": 0, "hybrid": 1}
    )
    (curve,) = last.curves
    points = [tuple(map(float, point.split(","))) for point in curve.points.split()]
    assert points == [(last.x(e), last.y(0.5 + e / 10)) for e in (1, 2, 3)]
    assert len(training_plots(make_comparison(), {"dense": 0, "hybrid": 1})) == 2


def test_each_run_links_its_configuration():
    page = Page(render(make_comparison(), make_source(), folder="../of this"))
    assert page.links == [
        f"../of%20this/runs/{arm}/seed-{seed}/config.yaml" for arm in ("dense", "hybrid") for seed in (0, 1)
    ]


def test_texts_stay_texts_in_a_browser(browser, tmp_path):
    page = tmp_path / "report.html"
    comparison = make_comparison()
    comparison.settings.update(model=EVIL, dataset=EVIL)
    page.write_text(render(comparison, make_source(), folder="."))
    browser.log()
    browser.open(page)
    assert browser.run("return document.querySelectorAll('script, img').length") == 0
    assert EVIL in browser.run("return document.body.innerText")
    assert browser.log() == []
    # The second wall: the page's policy stops what would have got in.
    page.write_text(page.read_text().replace("<main>", "<main><script>window.pwned = 1</script>"))
    browser.open(page)
    assert browser.run("return window.pwned") is None
    assert any("Content Security Policy" in message for message in browser.log())


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_in_a_browser(browser, tmp_path, width, dark):
    comparison = make_comparison()
    for run in comparison.arms["dense"]:
        run.history[:] = [{"step": 1, "loss": 0.5}]
    page = tmp_path / "report.html"
    page.write_text(render(comparison, make_source(), folder="."))
    try:
        browser.view(width, 900, dark)
        browser.open(page)
        browser.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        assert browser.cut_off() == []
        shown = browser.run("return document.body.innerText.replace(/\\s+/g, ' ')")
        assert "+0.0500" in shown and ("\u0394 vs dense" in shown) is (width == 1280)
        labels = browser.run(
            "return [...document.querySelectorAll('.results td')].filter((e) => e.getClientRects().length)"
            ".map((e) => getComputedStyle(e, '::before').content)"
        )
        assert ('"\u0394 vs dense"' in labels) is (width == 390)
        dots = "return [...document.querySelectorAll('.dot')].map((e) => e.getBoundingClientRect().width > 3)"
        assert browser.run(dots) == [True]
        paper = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is not dark
        assert browser.log() == []
    finally:
        browser.devtools("Emulation.clearDeviceMetricsOverride")
        browser.devtools("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize("values", [[0.61, 0.77], [-0.02, 0.013], [0.5], [0.0], [3, 1000], [], [math.nan, 1]])
def test_an_axis_covers_its_values_with_round_ticks(values):
    axis = make_axis(values, 10, 210)
    assert axis(axis.low) == 10 and axis(axis.high) == 210 and 2 <= len(axis.ticks) <= 8
    for value in values:
        assert math.isnan(value) or 10 <= axis(value) <= 210
    labels = [float(label) for _, label in axis.labels]
    assert labels == pytest.approx(axis.ticks, abs=1e-9)


def test_the_command_needs_a_comparison(tmp_path):
    with pytest.raises(InputError, match=r"comparison\.json: no such file"):
        main(["--comparison", str(tmp_path)])
