"""The tables of RESULTS.md, README.md and docs/, written from what each query scored in each run.

python benchmarks/results.py keep --comparison out/compare/tldr --output docs/results/tldr.parquet
python benchmarks/results.py tables
python benchmarks/results.py tables --check

`keep` makes one small Parquet file of a comparison: a line for each run and query, so that anyone can test
again. `tables` replaces what stands between `<!-- table: NAME ... -->` and `<!-- end -->` in the pages, and
`figure` draws docs/assets/results.svg.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from syneg.errors import InputError
from syneg.evaluation.arguments import ZERO_SHOT
from syneg.evaluation.comparison import LAST as LAST_RECORD
from syneg.evaluation.comparison import Comparison, Run, load_comparison
from syneg.evaluation.metrics import METRICS, QueryScores, aligned, mean_scores
from syneg.evaluation.pilot import best_epoch
from syneg.evaluation.significance import format_p
from syneg.evaluation.summary import Line, summarise, summary_table
from syneg.evaluation.verdict import best_arm, judge

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "results"
BEST, LAST = "best", "last"
SOURCES = ("tldr", "nl2bash", "pydocs")
"""Sources whose splits share no document, in the order of the overview."""

_SCHEMA = {
    "arm": pa.dictionary(pa.int16(), pa.string()),
    "seed": pa.int16(),
    "model": pa.dictionary(pa.int8(), pa.string()),
    "epoch": pa.float32(),
    "query_id": pa.dictionary(pa.int32(), pa.string()),
    "shared": pa.bool_(),
    **dict.fromkeys(METRICS, pa.float64()),
}
_TABLE = re.compile(r"(<!-- table: ([^>]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def keep(comparison: str, output: Path) -> None:
    """Writes a comparison's runs, each at its best epoch and after its last step, as one Parquet file."""
    best = load_comparison(comparison)
    groups = {BEST: best}
    if any(Path(comparison).glob(f"runs/*/*/{LAST_RECORD}")):
        groups[LAST] = load_comparison(comparison, last=True)
    shared = _shared_queries(best)
    columns: dict[str, list[Any]] = {name: [] for name in _SCHEMA}
    for model, group in groups.items():
        runs = [group.zero_shot] if model == BEST else []
        for run in [*runs, *(run for arm in group.arms.values() for run in arm)]:
            epoch = best_epoch(run.history) if model == BEST else None
            for query in run.queries:
                values = (run.arm, run.seed, model, epoch, query.query_id, query.query_id in shared)
                metrics = [getattr(query, name) for name in METRICS]
                for name, value in zip(_SCHEMA, (*values, *metrics), strict=True):
                    columns[name].append(value)
    kept = ("metric", "baseline", "seeds", "evaluated_split", "training", "arms")
    settings = {name: best.settings[name] for name in kept}
    table = pa.table(columns, schema=pa.schema(_SCHEMA, metadata={"settings": json.dumps(settings)}))
    output.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, output, compression="zstd")
    print(f"{output}: {len(table):,} lines, {output.stat().st_size / 1024:.0f} KiB")


def _shared_queries(comparison: Comparison) -> set[str]:
    from dataclasses import fields

    from syneg.sources import SourceArguments, source_of
    from syneg.sources.overlap import shared_judgements

    settings = comparison.settings
    known = {field.name for field in fields(SourceArguments)}
    source = source_of(SourceArguments(**{k: v for k, v in settings.items() if k in known}))
    return set(shared_judgements(source, settings["split"]).shared_queries)


@cache
def kept(name: str, model: str = BEST) -> Comparison:
    """Returns a kept comparison as the project's own tables take it.

    Raises:
        InputError: Where no such comparison is kept.
    """
    path = KEPT / f"{name}.parquet"
    if not path.is_file():
        raise InputError(f"{path}: no such file; `results.py keep` writes it.")
    table = pq.read_table(path)
    settings = json.loads(table.schema.metadata[b"settings"])
    queries: dict[tuple[str, int | None], list[QueryScores]] = {}
    epochs: dict[tuple[str, int | None], float | None] = {}
    for line in table.to_pylist():
        if line["arm"] != ZERO_SHOT and line["model"] != model:
            continue
        key = line["arm"], line["seed"]
        scores = {metric: float(line[metric]) for metric in METRICS}
        queries.setdefault(key, []).append(QueryScores(line["query_id"], **scores, retrieved=[]))
        epochs[key] = line["epoch"]
    arms: dict[str, list[Run]] = {}
    for (arm, seed), scores in queries.items():
        work = {"epoch": epochs[arm, seed]}
        arms.setdefault(arm, []).append(Run(arm, seed, mean_scores(scores), scores, [], work))
    (zero_shot,) = arms.pop(ZERO_SHOT)
    ordered = {arm: arms[arm] for arm in settings["arms"] if arm in arms}
    return Comparison(settings, zero_shot, ordered, [])


def shared(name: str) -> set[str]:
    """Returns the queries with a relevant document that is relevant in training too."""
    table = pq.read_table(KEPT / f"{name}.parquet", columns=["query_id", "shared"])
    return {line["query_id"] for line in table.to_pylist() if line["shared"]}


@cache
def lines_of(name: str, model: str = BEST) -> dict[str, Line]:
    """Returns a kept comparison's lines, by arm."""
    return {line.arm: line for line in summarise(kept(name, model))}


def arms_table(name: str, model: str = BEST) -> str:
    """Returns all arms of a comparison, with the epochs that were chosen where that was done."""
    comparison = kept(name, model)
    table = summary_table(comparison)
    if model == LAST or not comparison.settings["training"].get("save_best"):
        return table
    chosen = {
        arm: "/".join(f"{run.work['epoch']:g}" for run in runs) for arm, runs in comparison.arms.items()
    }
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    head, *body = (row for i, row in enumerate(rows) if i != 1)
    return aligned([[*head, "epochs"], *([*row, chosen.get(row[0], "")] for row in body)])


def half_table(name: str, part: str) -> str:
    """Returns all arms on the queries whose documents were seen in training, or on the others."""
    comparison, seen = kept(name), shared(name)
    ids = {query.query_id for query in comparison.zero_shot.queries}
    return summary_table(comparison.select(ids & seen if part == "seen" else ids - seen))


def verdict(name: str, pairs: str) -> str:
    """Returns a pilot's sentence on the gated hybrid arm, and the arm it would have used."""
    comparison = kept(name)
    sentence = judge(comparison, "hybrid").sentence(int(pairs))
    return f"> VERDICT: {sentence} Best arm: {best_arm(comparison)}.\n"


def overview(*arms: str) -> str:
    """Returns chosen arms over all sources without overlap: mean, difference from dense, its p."""
    sources = [name for name in SOURCES if (KEPT / f"{name}.parquet").is_file()]
    cells = [["", *sources]]
    for arm in (ZERO_SHOT, *arms):
        row = [arm]
        for name in sources:
            line = lines_of(name).get(arm)
            row.append("" if line is None else _cell(line))
        cells.append(row)
    return aligned(cells)


def _cell(line: Line) -> str:
    mean = f"{line.means['ndcg_at_10']:.4f}"
    if line.difference is None:
        return f"**{mean}**"
    assert line.corrected_p is not None
    return f"{mean} ({line.difference.mean * 100:+.1f}, p {format_p(line.corrected_p)})"


def made(name: str) -> str:
    """Returns what stands under a name.

    That is `arms SOURCE [last]`, `half SOURCE seen|unseen`, `overview ARM ...` or `verdict PILOT PAIRS`.

    Raises:
        InputError: For another name.
    """
    kind, *words = name.split()
    makers = {"arms": arms_table, "half": half_table, "overview": overview, "verdict": verdict}
    if kind not in makers:
        raise InputError(f"table {name!r}: no such kind; {', '.join(makers)} are known.")
    return makers[kind](*words)


def pages() -> list[Path]:
    """Returns the pages that ask for tables."""
    found = [ROOT / "README.md", ROOT / "RESULTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if "<!-- table: " in path.read_text(encoding="utf-8")]


def renewed(text: str) -> str:
    """Returns a page with its tables as the kept runs have them."""
    return _TABLE.sub(lambda match: f"{match[1]}{made(match[2])}{match[4]}", text)


def figure(output: Path) -> None:
    """Draws each arm's difference from dense on every source, with its interval."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "syneg", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    sources = [name for name in SOURCES if (KEPT / f"{name}.parquet").is_file()]
    arms = list(dict.fromkeys(arm for name in sources for arm in kept(name).arms if arm != "dense"))
    drawing, axes = pyplot.subplots(figsize=(7.2, 0.32 * len(arms) + 1.1))
    for i, name in enumerate(sources):
        for arm, line in lines_of(name).items():
            if arm not in arms or line.difference is None:
                continue
            y = arms.index(arm) + (i - (len(sources) - 1) / 2) * 0.22
            low, mean, high = (
                100 * x for x in (line.difference.low, line.difference.mean, line.difference.high)
            )
            axes.plot([low, high], [y, y], color=f"C{i}", linewidth=1.4)
            axes.plot([mean], [y], "o", color=f"C{i}", markersize=4, label=name if arm == arms[0] else None)
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.set_xlabel("nDCG@10 points against 3 filtered dense negatives, 95% interval")
    axes.legend(frameon=False, loc="best")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    drawing.tight_layout()
    drawing.savefig(output, metadata={"Date": None})
    print(output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("keep")
    one.add_argument("--comparison", required=True)
    one.add_argument("--output", type=Path, required=True)
    one = commands.add_parser("tables")
    one.add_argument("--check", action="store_true")
    one = commands.add_parser("figure")
    one.add_argument("--output", type=Path, default=ROOT / "docs" / "assets" / "results.svg")
    args = parser.parse_args()
    if args.command == "keep":
        keep(args.comparison, args.output)
    elif args.command == "figure":
        figure(args.output)
    else:
        stale = False
        for path in pages():
            text = path.read_text(encoding="utf-8")
            current = renewed(text)
            if current == text:
                continue
            stale = True
            if not args.check:
                path.write_text(current, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {'is not current' if args.check else 'written'}")
        return int(args.check and stale)
    return 0


if __name__ == "__main__":
    sys.exit(main())
