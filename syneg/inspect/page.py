"""The page: one HTML file without network, in which passages are texts and nothing else.

Two walls stand between a passage and a script: the template escapes every value, and the page's
content security policy names the hashes of its own style and script and allows nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from syneg.gating.judge import document_key
from syneg.gating.verdicts import VERDICTS
from syneg.hub.cards import number, report
from syneg.inspect.marks import mark
from syneg.inspect.measures import BINS, POSITIVE, Distribution, Measure, headline, suspicions
from syneg.inspect.sample import Sample, ShownPair
from syneg.rows import SYNTHETIC, Negative
from syneg.text import visible

WIDTH, HEIGHT = 224, 36
"""Size of a histogram in the page, in CSS pixels."""

COLOURS = 8
TOLLS = {
    "mining": "Mining",
    "generation": "Generation",
    "tokens": "Tokens",
    "gating": "Gates",
    "audit": "Audit",
}
"""Fields of the manifest that are shown as tables, and how."""

FACTS = ("difficulty", "domain", "length", "rank", "score", "teacher_score", "verdict", "generator")


def render_page(sample: Sample, measures: list[Measure], encoder: Any = None) -> str:
    """Returns the page as HTML.

    Args:
        sample: What to show.
        measures: Distributions.
        encoder: A SentenceTransformer to order negatives by where no teacher scored them.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"visible": _visible, "report": report}
    style, script = (
        Markup(environment.get_template(name).render(verdicts=VERDICTS))
        for name in ("page.css.j2", "page.js.j2")
    )
    rows = [
        {
            "query": pair.query,
            "positive": pair.positive,
            "negatives": [*pair.negatives, *(drop.negative for drop in pair.dropped)],
        }
        for pair in sample.shown
    ]
    suspicion, values = suspicions(rows, encoder)
    pairs = [_pair(*each) for each in zip(sample.shown, values, strict=True)]
    sources = _sources(sample, measures)
    return environment.get_template("page.html.j2").render(
        sample=sample,
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        headline=headline(measures),
        suspicion=suspicion,
        verdicts=VERDICTS,
        store=_digest(sample.name, sample.split, sample.total, sample.manifest.get("version")),
        evenly=sample.evenly,
        others=len(pairs) - sample.evenly,
        sources=sources,
        colours={POSITIVE: 0} | {source: 1 + i % (COLOURS - 1) for i, source in enumerate(sources)},
        difficulties=sorted({n["difficulty"] for pair in pairs for n in pair["negatives"]}),
        measures=[_measure(measure) for measure in measures],
        tolls=tolls(sample),
        pairs=pairs,
        width=WIDTH,
        height=HEIGHT,
    )


def tolls(sample: Sample) -> dict[str, Mapping[str, Any]]:
    """Returns what the stages reported, by heading; with what was counted in the data set itself."""
    tables = {heading: sample.manifest.get(name) for name, heading in TOLLS.items()}
    counted = {"Dropped negatives, as counted": dict(sample.gates.most_common())}
    return {heading: table for heading, table in (counted | tables).items() if table}


def _sources(sample: Sample, measures: list[Measure]) -> list[str]:
    """Returns the sources that occur, synthetic first."""
    found = {d.source for measure in measures for d in measure.distributions} - {POSITIVE}
    found |= {negative["source"] for pair in sample.shown for negative in pair.negatives}
    found |= {drop.negative["source"] for pair in sample.shown for drop in pair.dropped}
    return sorted(found, key=lambda source: (source != SYNTHETIC, source))


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=6).hexdigest()


def _visible(value: Any) -> str:
    return visible(str(value)) if value is not None else ""


def _pair(pair: ShownPair, suspicion: list[float | None]) -> dict[str, Any]:
    shown: list[tuple[Negative, str, str]] = [(negative, "", "") for negative in pair.negatives]
    shown += [(drop.negative, drop.gate, drop.reason) for drop in pair.dropped]
    return {
        "address": f"row-{_digest(*pair.key)}",
        "number": pair.number,
        "query": pair.query,
        "origin": pair.origin,
        "positive_id": pair.positive_id,
        "pieces": mark(pair.positive, pair.query),
        "negatives": [_negative(pair, *one, value) for one, value in zip(shown, suspicion, strict=True)],
    }


def _negative(
    pair: ShownPair, negative: Negative, gate: str, reason: str, suspicion: float | None
) -> dict[str, Any]:
    score, of_positive = negative["teacher_score"], negative["positive_teacher_score"]
    return {
        # What a verdict is on, as JSON in ASCII: an attribute would not keep every character.
        "judged": json.dumps({"query_id": pair.query_id, "doc_id": document_key(negative)}),
        "suspicion": "" if suspicion is None else f"{suspicion:.6g}",
        "above": score is not None and of_positive is not None and score > of_positive,
        "source": negative["source"],
        "doc_id": negative["doc_id"],
        "difficulty": negative["difficulty"] or "",
        "reasoning": negative["reasoning"],
        "facts": facts(negative),
        "gate": gate,
        "reason": reason,
        "pieces": mark(negative["text"], pair.query, pair.positive),
    }


def facts(negative: Negative) -> list[tuple[str, str]]:
    """Returns name and value of what is known of a negative."""
    values = {name: number(value) for name in FACTS if (value := negative.get(name)) is not None}
    if "teacher_score" in values and negative["positive_teacher_score"] is not None:
        values["teacher_score"] += f" (positive {number(negative['positive_teacher_score'])})"
    return [(name.replace("_", " "), value) for name, value in values.items()]


def _measure(measure: Measure) -> dict[str, Any]:
    positive = next((d for d in measure.distributions if d.source == POSITIVE), None)
    peak = float(positive.shares.max()) if positive else 0.0
    # Each histogram has its own height, at which its outline is drawn too: a source whose values are
    # all alike would flatten the others.
    tops = {d.source: max(peak, float(d.shares.max())) for d in measure.distributions}
    rows = [
        {
            "source": d.source,
            "count": d.count,
            "low": number(round(d.low, 3)),
            "median": number(round(d.median, 3)),
            "high": number(round(d.high, 3)),
            "above": "" if d.above is None else f"{d.above:.0%}",
            "label": f"{measure.name} of {d.source}: median {d.median:.3g}",
            "bars": _bars(d, tops[d.source]),
            "outline": _outline(positive, tops[d.source]) if positive not in (None, d) else "",
        }
        for d in measure.distributions
    ]
    axis = f"{measure.start:.3g} to {measure.stop:.3g}"
    return {"name": measure.name, "meaning": measure.meaning, "axis": axis, "rows": rows}


def _bars(distribution: Distribution, top: float) -> Iterable[dict[str, float]]:
    step = WIDTH / BINS
    for i, share in enumerate(distribution.shares):
        if share:
            height = round(float(share) / top * (HEIGHT - 1), 2)
            yield {
                "x": round(i * step, 2),
                "y": round(HEIGHT - height, 2),
                "width": round(step - 0.6, 2),
                "height": height,
            }


def _outline(distribution: Distribution | None, top: float) -> str:
    if distribution is None:
        return ""
    step, points = WIDTH / BINS, []
    for i, share in enumerate(distribution.shares):
        y = round(HEIGHT - float(share) / top * (HEIGHT - 1), 2)
        points += [f"{round(i * step, 2)},{y}", f"{round((i + 1) * step, 2)},{y}"]
    return " ".join(points)
