"""Renders the report: results, training curves, and the queries won and lost."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from syneg.evaluation.arguments import ZERO_SHOT
from syneg.evaluation.comparison import Comparison
from syneg.evaluation.metrics import METRICS
from syneg.evaluation.report.charts import Axis, Plot, line_plot, make_axis
from syneg.evaluation.significance import format_p
from syneg.evaluation.summary import Line, query_means, summarise, work_notes
from syneg.evaluation.work import (
    GRADIENT_VARIANCE,
    format_course,
    format_negatives,
    logged_masses,
    mean_series,
    run_time,
    source_of,
    training_courses,
    work_of,
)
from syneg.sources import document_text

if TYPE_CHECKING:
    from syneg.evaluation.comparison import Run
    from syneg.sources import Source

CELL = (165.0, 26.0)
"""Width and height of a chart within the results table, in pixels."""
PLOT = (380.0, 220.0)
"""Width and height of a training curve."""
SHOWN = 5
"""Documents shown of each ranking."""
EXCERPT = 160
"""Characters shown of a document."""


@dataclass(frozen=True)
class Document:
    """A document in a ranking."""

    id: str
    text: str
    relevant: bool


@dataclass(frozen=True)
class QueryExample:
    """A query won or lost, with the rankings of the run with the first seed."""

    query: str
    before_score: float
    after_score: float
    relevant: list[Document]
    before: list[Document]
    after: list[Document]

    @property
    def change(self) -> float:
        """The score after less the score before."""
        return self.after_score - self.before_score


@dataclass(frozen=True)
class ArmExamples:
    """The largest wins and losses of an arm against another."""

    arm: str
    against: str
    wins: list[QueryExample]
    losses: list[QueryExample]
    counts: tuple[int, int, int]


def render(comparison: Comparison, source: Source, examples: int = 5) -> str:
    """Returns the page, which loads nothing and runs no script.

    Args:
        comparison: What was compared.
        source: Where the queries' and documents' texts are.
        examples: Queries shown among the wins and among the losses of an arm.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("syneg.evaluation.report", "."), autoescape=True, undefined=StrictUndefined
    )
    style = environment.get_template("report.css.j2").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    settings, lines = comparison.settings, summarise(comparison)
    colours = {arm: i for i, arm in enumerate(comparison.arms)}
    scores, differences = _axes(lines)
    return environment.get_template("report.html.j2").render(
        style=style,
        style_hash=f"sha256-{digest}",
        settings=settings,
        heading=METRICS[settings["metric"]],
        others=[name for name in METRICS if name != settings["metric"]],
        headings=METRICS,
        lines=lines,
        zero_shot=ZERO_SHOT,
        num_queries=len(comparison.zero_shot.queries),
        scores=scores,
        differences=differences,
        cell=CELL,
        plot=PLOT,
        colours=colours,
        plots=training_plots(comparison, colours),
        work=work_of(comparison),
        courses=training_courses(comparison),
        format_negatives=format_negatives,
        format_course=format_course,
        masses=logged_masses(comparison),
        source_of=source_of,
        gradient_variance=GRADIENT_VARIANCE,
        run_time=run_time(comparison),
        notes=work_notes(comparison),
        examples=list(query_examples(comparison, source, examples)),
        format_p=format_p,
    )


def _axes(lines: list[Line]) -> tuple[Axis, Axis]:
    scores = make_axis([value for line in lines for value in line.by_seed.values()], 12, CELL[0] - 12, 2)
    ends = [end for line in lines if line.difference for end in (line.difference.low, line.difference.high)]
    return scores, make_axis([0.0, *ends], 12, CELL[0] - 12, 3)


def training_plots(comparison: Comparison, colours: Mapping[str, int]) -> list[Plot]:
    """Returns the curves of what was logged: loss, softmax mass by source, variance of the gradient."""
    histories = {arm: [run.history for run in runs] for arm, runs in comparison.arms.items()}
    wanted = [("loss", "Loss", "Mean over the seeds, at each logged step.")]
    wanted += [
        (
            key,
            f"Softmax mass of {source_of(key)} negatives",
            "Their share of the softmax: what they weigh in the gradient.",
        )
        for key in logged_masses(comparison)
    ]
    wanted.append((GRADIENT_VARIANCE, "Variance of the gradient", "Over a batch's instances, by the query."))
    plots = []
    for key, title, meaning in wanted:
        series = {arm: mean_series(runs, key) for arm, runs in histories.items()}
        series = {arm: line for arm, line in series.items() if line}
        if series:
            plots.append(line_plot(title, meaning, series, colours, PLOT))
    return plots


def query_examples(comparison: Comparison, source: Source, count: int) -> Iterable[ArmExamples]:
    """Yields each arm's largest wins and losses: of the baseline against zero-shot, else the baseline."""
    settings = comparison.settings
    metric, baseline = settings["metric"], settings["baseline"]
    qrels = source.judgements(settings["split"])
    groups = {ZERO_SHOT: [comparison.zero_shot], **comparison.arms}
    for arm, runs in comparison.arms.items():
        against = ZERO_SHOT if arm == baseline or baseline not in groups else baseline
        ours, theirs = query_means(runs, metric), query_means(groups[against], metric)
        change = {query: ours[query] - theirs[query] for query in ours}
        ordered = sorted(change, key=lambda query: (-change[query], query))
        won = [query for query in ordered if change[query] > 1e-9]
        lost = [query for query in reversed(ordered) if change[query] < -1e-9]
        rankings = [_rankings(groups[against][0]), _rankings(runs[0])]
        wins, losses = (
            [_example(source, qrels, query, theirs[query], ours[query], *rankings) for query in part[:count]]
            for part in (won, lost)
        )
        yield ArmExamples(
            arm, against, wins, losses, (len(won), len(lost), len(ordered) - len(won) - len(lost))
        )


def _rankings(run: Run) -> dict[str, list[str]]:
    return {query.query_id: query.retrieved[:SHOWN] for query in run.queries}


def _example(
    source: Source,
    qrels: Mapping[str, Mapping[str, float]],
    query_id: str,
    before: float,
    after: float,
    rankings_before: Mapping[str, list[str]],
    rankings_after: Mapping[str, list[str]],
) -> QueryExample:
    relevant = {document for document, grade in qrels[query_id].items() if grade > 0}
    row = int(source.query_ids.get_indexer([query_id])[0])
    return QueryExample(
        source.queries[row]["text"],
        before,
        after,
        _documents(source, sorted(relevant)[:SHOWN], relevant),
        _documents(source, rankings_before[query_id], relevant),
        _documents(source, rankings_after[query_id], relevant),
    )


def _documents(source: Source, ids: list[str], relevant: set[str]) -> list[Document]:
    rows = source.document_ids.get_indexer(ids).tolist()
    found = []
    for document_id, row in zip(ids, rows, strict=True):
        record = source.corpus[row]
        text = document_text(record["title"], record["text"])
        short = text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " …"
        found.append(Document(document_id, short, document_id in relevant))
    return found
