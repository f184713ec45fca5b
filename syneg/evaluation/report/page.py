"""Renders the report: results, training curves, and the queries won and lost."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from syneg.evaluation.arguments import ZERO_SHOT
from syneg.evaluation.comparison import Comparison, run_folder
from syneg.evaluation.metrics import METRICS
from syneg.evaluation.report.charts import Axis, Plot, line_plot, make_axis
from syneg.evaluation.significance import format_interval, format_p
from syneg.evaluation.summary import Line, query_means, summarise, work_notes
from syneg.evaluation.work import (
    GRADIENT_VARIANCE,
    format_course,
    format_negatives,
    logged_masses,
    mass_source,
    mean_series,
    run_time,
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
SIGNIFICANT = 0.05
"""A corrected p-value below this is told as more than chance."""
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


def render(comparison: Comparison, source: Source, examples: int = 5, folder: str | None = None) -> str:
    """Returns the page, which loads nothing and runs no script.

    Args:
        comparison: What was compared.
        source: Where the queries' and documents' texts are.
        examples: Queries shown among the wins and among the losses of an arm.
        folder: Where the comparison lies as seen from the page, for links to the runs' configurations;
            None for no links.
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
        headline=conclusion(comparison, lines),
        configurations=_configurations(comparison, folder) if folder is not None else {},
        format_interval=format_interval,
        style_hash=f"sha256-{digest}",
        settings=settings,
        heading=comparison.heading,
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
        mass_source=mass_source,
        gradient_variance=GRADIENT_VARIANCE,
        run_time=run_time(comparison),
        notes=work_notes(comparison),
        examples=list(query_examples(comparison, source, examples)),
        format_p=format_p,
    )


def conclusion(comparison: Comparison, lines: list[Line]) -> list[str]:
    """Returns what the comparison comes to in sentences: what differs, by how much, and how sure that is."""
    settings = comparison.settings
    baseline, metric = settings["baseline"], comparison.heading
    by_arm = {line.arm: line for line in lines}
    if baseline not in by_arm:
        return [f"Nothing is tested: the baseline, {baseline}, has no finished run."]
    arms = [line for line in lines if line.difference is not None and line.arm != ZERO_SHOT]
    sure = [line for line in arms if line.corrected_p is not None and line.corrected_p < SIGNIFICANT]
    sentences = []
    if len(arms) > 1:
        sentences.append(
            f"{len(sure) or 'None'} of the {len(arms)} other arms "
            f"{'differs' if len(sure) < 2 else 'differ'} from {baseline} by more than chance would make."
        )
    if arms:
        best = max(sure or arms, key=lambda line: line.difference.mean if line.difference else 0.0)
        sentences.append(_difference(best.arm, baseline, metric, best))
    before = by_arm[ZERO_SHOT]
    if before.difference is not None:
        sentences.append(_difference(baseline, "the model before training", metric, before, turned=True))
    return sentences


def _difference(arm: str, other: str, metric: str, line: Line, turned: bool = False) -> str:
    """Returns a sentence on a difference; `turned` for one that is of the other from the arm."""
    difference = line.difference
    assert difference is not None and line.corrected_p is not None
    mean, low, high = difference.mean, difference.low, difference.high
    if turned:
        mean, low, high = -mean, -high, -low
    queries = difference.wins + difference.losses + difference.ties
    chance = "" if line.corrected_p < SIGNIFICANT else ": it may be chance"
    interval = "" if math.isnan(low) else f"95% interval {low:+.4f} to {high:+.4f}, "
    p = format_p(line.corrected_p)
    sure = f"({interval}p {p if p.startswith('<') else f'= {p}'}, {queries:,} queries){chance}"
    if abs(mean) < 5e-5:
        return f"{arm} scores as {other} does {sure}."
    return f"{arm} scores {abs(mean):.4f} {metric} {'above' if mean > 0 else 'below'} {other} {sure}."


def _configurations(comparison: Comparison, folder: str) -> dict[str, dict[int | None, str]]:
    """Returns arm -> seed -> the address of the run's configuration."""
    return {
        arm: {run.seed: quote(f"{run_folder(Path(folder), arm, run.seed or 0)}/config.yaml") for run in runs}
        for arm, runs in comparison.arms.items()
    }


def _axes(lines: list[Line]) -> tuple[Axis, Axis]:
    scores = make_axis([value for line in lines for value in line.by_seed.values()], 12, CELL[0] - 12, 2)
    ends = [end for line in lines if line.difference for end in (line.difference.low, line.difference.high)]
    return scores, make_axis([0.0, *ends], 12, CELL[0] - 12, 3)


def training_plots(comparison: Comparison, colours: Mapping[str, int]) -> list[Plot]:
    """Returns the curves of what was logged: loss, softmax mass by source, variance of the gradient, over
    the steps; and what was measured on held-out queries or rows on the way, over the epochs."""
    histories = {arm: [run.history for run in runs] for arm, runs in comparison.arms.items()}
    wanted = [("loss", "step", "Loss", "Mean over the seeds, at each logged step.")]
    wanted += [
        (
            key,
            "step",
            f"Softmax mass of {mass_source(key)} negatives",
            "Their share of the softmax: what they weigh in the gradient. By step.",
        )
        for key in logged_masses(comparison)
    ]
    meaning = "Over a batch's instances, by the query. By step."
    wanted.append((GRADIENT_VARIANCE, "step", "Variance of the gradient", meaning))
    # As the trainer calls it, whoever wrote the queries that the arms are evaluated on.
    metric = METRICS[comparison.settings["metric"]]
    for key in evaluated_keys(comparison):
        if key.endswith(metric.lower()):
            title = f"{metric} on held-out queries"
        elif key.endswith("loss"):
            title = "Loss on held-out rows"
        else:
            continue
        wanted.append((key, "epoch", title, "Mean over the seeds, by epoch."))
    plots = []
    for key, by, title, meaning in wanted:
        series = {arm: mean_series(runs, key, by) for arm, runs in histories.items()}
        series = {arm: line for arm, line in series.items() if line}
        if series:
            plots.append(line_plot(title, meaning, series, colours, PLOT))
    return plots


def evaluated_keys(comparison: Comparison) -> list[str]:
    """Returns what was measured during training, as the trainer calls it."""
    runs = [run for arm in comparison.arms.values() for run in arm]
    return sorted({key for run in runs for line in run.history for key in line if key.startswith("eval_")})


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
