"""The card of a data set: YAML that the Hub's viewer reads, and text for people.

Passages are untrusted: they come from corpora and from LLMs. They stand only inside HTML blocks,
whose contents Markdown leaves alone, escaped by the template engine and without line breaks, which
would end the block. YAML is written by a YAML writer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from syneg.hub.reading import FolderInfo
from syneg.mining.report import RULES
from syneg.rows import SYNTHETIC, WRITTEN_ORIGIN, interleave_sources, mined_source, written_kind
from syneg.text import visible

CITATION = """@article{syneg2024,
  title         = {SyNeg: LLM-Driven Synthetic Hard-Negatives for Dense Retrieval},
  year          = {2024},
  eprint        = {2412.17250},
  archivePrefix = {arXiv}
}"""

TEXT_CHARS = 400
"""Longer passages are cut in the card's examples, in characters."""

EXAMPLE_NEGATIVES = 6
"""Negatives shown in one example."""

THIS_FOLDER = "path/to/this/folder"
"""What the examples of a card load where nobody has said under which name it will be published."""

_WORDS = {
    # of mining
    "pairs": "pairs (query, positive)",
    "per_miner": "negatives asked for, for each pair and miner",
    "miners": "by miner",
    "candidates": "candidates found",
    "kept": "kept",
    "short_rows": "pairs with fewer than asked for",
    "empty_rows": "of these, pairs without any",
    "filled": "random documents put in for what was short",
    "positives_beyond": "pairs whose positive the miner does not find within its depth",
    # of generation
    "prompt": "prompt",
    "generators": "negatives kept, by the LLM that wrote them",
    "requests": "requests to the LLM",
    "completions": "answers, failed attempts included",
    "failed": "requests whose last attempt failed too",
    "unanswered": "requests without an answer",
    "failures": "failed attempts, by what was wrong",
    "truncations": "failed attempts that were cut off",
    "prompt_tokens": "tokens that the LLM read",
    "completion_tokens": "tokens that the LLM wrote",
    "tokens_per_kept": "tokens for each negative kept",
    "thinking_stripped": "answers with thinking, which was taken off",
    "positives_cut": "positives cut to fit into the prompt",
    "skipped": "requests that were not recorded, so not answered",
    "changed": "requests whose query is another than when it was recorded",
    "missing": "recordings of pairs that the source does not have",
    "torn": "incomplete lines of the journal, passed over",
    # of the gates
    "rows": "rows that came in",
    "emptied": "rows that lost their last negative",
    "added": "rows added, of documents that turned out to be positives",
    "notes": "counted besides",
    # of the audit
    "by": "how well synthetic and mined negatives are told apart without the query",
    "surface": "features that tell most: area under the curve, median in synthetic, in mined",
    "synthetic_words": "words that give away a synthetic one",
    "mined_words": "words that give away a mined one",
    "length": "length",
    "vocabulary": "different words in the first 20,000",
    "clusters": "clusters",
    "pure_clusters": "clusters of which nine in ten are of one source",
    "in_pure_clusters": "share of the texts in these",
    "in_pure_by_chance": "the same with the sources shuffled",
    # of the filters
    "rank_from": "best rank taken (--rank_from)",
    "min_score": "lowest score (--min_score)",
    "max_score": "highest score (--max_score)",
    "absolute_margin": "least distance from the positive's score (--absolute_margin)",
    "relative_margin": "the same as a share of the positive's score (--relative_margin)",
    "teacher_margin": "teacher's least distance, as a share of the positive's score (--teacher_margin)",
    "teacher_max_margin": "teacher's largest distance, likewise (--teacher_max_margin)",
}
"""Figures of the stages' reports and options, in plain words."""

_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")
_TEMPLATES = Path(__file__).parent


@dataclass
class DatasetCardInfo:
    """What a card says beyond what the folder itself shows. All of it is also kept in syneg.json.

    The mappings are the stages' reports as plain values (numbers, strings, mappings and lists of
    these), shown as tables.

    Attributes:
        name: The data set's name, as in "msmarco-hardneg".
        repo_id: Where it is to be published, for the loading examples.
        version: Version of the data set; its revision on the Hub is tagged ``v<version>``.
        source: The source it was made from, as given to `load_source`.
        origins: Pairs of each split by origin, where an LLM wrote queries: {"train": {"written": 30}}.
        left_out: What of the source is in no row, a line each, as in "3 documents without text".
        source_datasets: Hub ids of the data sets it derives from, for the YAML.
        licence: Licence identifier of the Hub, as in "apache-2.0" or "other".
        attribution: Whose the source's texts are, and under what terms.
        languages: ISO 639 codes.
        tags: Further tags.
        command: The command line that makes it again.
        encoder: The model of the dense miner.
        teacher: The model that scored the negatives.
        margins: Option -> value, of the filters by a miner's and the teacher's scores.
        mining: Miners, their arguments and the tolls of their filters.
        strategy: Name of the prompt's strategy.
        prompt_version: The prompt's version.
        prompt: The prompt's text, with its placeholders.
        attributes: Values that domain, difficulty and length are drawn from.
        engine: What turned requests into completions.
        llm: The model that wrote the synthetic negatives.
        generation: Report of the generation: requests, failures, ...
        tokens: Tokens spent.
        gating: Gates in order, with their tolls.
        audit: Report of the audit.
        seeds: Seeds of the random choices.
        limits: Known limits of this data set, beyond those of the method.
    """

    name: str
    repo_id: str | None = None
    version: str | None = None
    source: str | None = None
    origins: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    source_datasets: list[str] = field(default_factory=list)
    licence: str | None = None
    attribution: str | None = None
    languages: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    command: str | None = None
    encoder: str | None = None
    teacher: str | None = None
    margins: dict[str, Any] = field(default_factory=dict)
    mining: dict[str, Any] = field(default_factory=dict)
    strategy: str | None = None
    prompt_version: str | None = None
    prompt: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    engine: str | None = None
    llm: str | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, Any] = field(default_factory=dict)
    gating: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    seeds: dict[str, Any] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)


def dataset_card(info: DatasetCardInfo, folder: FolderInfo) -> str:
    """Returns the card, YAML and text.

    Args:
        info: What made the data set.
        folder: The folder as written: configurations, splits, sizes; its rows give the examples.
    """
    body = card_environment().get_template("dataset_card.md.j2").render(_context(info, folder))
    return f"---\n{_card_data(info, folder).to_yaml()}\n---\n\n{body}\n"


def _card_data(info: DatasetCardInfo, folder: FolderInfo) -> DatasetCardData:
    rows = sum(split.num_examples for split in folder.configs.get("default", {}).values())
    data = DatasetCardData(
        language=info.languages or None,
        license=info.licence,
        pretty_name=info.name,
        size_categories=[size_category(rows)],
        source_datasets=info.source_datasets or None,
        task_categories=["text-retrieval", "sentence-similarity"],
        tags=[
            "syneg",
            "hard-negatives",
            "sentence-transformers",
            *(["synthetic"] if info.llm or info.strategy else []),
            *info.tags,
        ],
    )
    DatasetInfosDict(folder.dataset_infos()).to_dataset_card_data(data)
    configs = {
        config: {
            **({"default": True} if config == "default" else {}),
            "data_files": [{"split": split, "path": f"{config}/{split}-*-of-*.parquet"} for split in splits],
        }
        for config, splits in folder.configs.items()
    }
    MetadataConfigs(configs).to_dataset_card_data(data)
    return data


def size_category(rows: int) -> str:
    """Returns the Hub's size category of a number of rows."""
    limit, number = 1000, 0
    while rows >= limit and number < len(_SIZES) - 1:
        limit, number = limit * 10, number + 1
    return _SIZES[number]


def _context(info: DatasetCardInfo, folder: FolderInfo) -> dict[str, Any]:
    sizes = {
        config: [
            {"name": name + _kind(info, name), "rows": split.num_examples, "bytes": sum(split.files.values())}
            for name, split in splits.items()
        ]
        for config, splits in folder.configs.items()
    }
    examples = folder.examples() if "default" in folder.configs else []
    sources = {negative["source"] for row in examples for negative in row.get("negatives") or []}
    triplet = next(iter(folder.configs.get("triplet", {}).values()), None)
    return {
        "title": info.name,
        "summary": _summary(info),
        "attribution": info.attribution,
        "sizes": sizes,
        "nothing_dropped": "dropped" in folder.empty and "dropped" not in sizes,
        "num_negatives": sum(name.startswith("negative_") for name in triplet.features) if triplet else 0,
        "repo_id": code(info.repo_id or THIS_FOLDER),
        "revision": code(f"v{info.version}") if info.version and info.repo_id else None,
        "first_split": next(iter(folder.configs.get("default", {"train": None}))),
        "mixture": _mixture(sources),
        "written_beside": {SYNTHETIC, "dense"} <= sources,
        "tables": _tables(info, {*folder.configs.get("default", {}), *folder.empty.get("default", [])}),
        "command": info.command,
        "left_out": info.left_out,
        "prompt": info.prompt,
        "prompt_version": info.prompt_version,
        "examples": [_example(row) for row in examples],
        "limits": [*info.limits, *_limits(info)],
        "citation": Markup(CITATION),
    }


def _kind(info: DatasetCardInfo, split: str) -> str:
    """Returns what stands behind a split's name where an LLM wrote its queries, or some of them."""
    origins = info.origins.get(split, {})
    kind = written_kind(origins.get(WRITTEN_ORIGIN, 0), sum(origins.values()))
    return f" ({kind})" if kind else ""


def _summary(info: DatasetCardInfo) -> str:
    text = "Hard negatives for training dense retrievers"
    text += f", made from {info.source}" if info.source else ""
    if info.llm or info.strategy:
        text += f"; synthetic ones written by {info.llm or 'an LLM'}"
        text += f" with the {info.strategy} prompt" if info.strategy else ""
    return text + "."


def _mixture(sources: set[str]) -> Markup:
    """Returns a mixture over sources that the data set has: three mined, or what is written where none is."""
    chosen = mined_source({source for source in sources if source.isidentifier()})
    return Markup(f'{{"{chosen}": 3}}' if chosen else f'{{"{SYNTHETIC}": 1}}')


def _tables(info: DatasetCardInfo, splits: set[str]) -> dict[str, Mapping[str, Any]]:
    """Returns what made the data set, by heading; reports of one split each under a heading of its own."""
    made = {
        "source": info.source,
        "encoder (dense miner)": info.encoder,
        "teacher": info.teacher,
        "engine": info.engine,
        "model": info.llm,
        "strategy": info.strategy,
        "prompt version": info.prompt_version,
        # Shown as texts: a seed of 0 is a seed, a margin of 0 a margin.
        **{name if "seed" in name else f"{name} seed": str(seed) for name, seed in info.seeds.items()},
    }
    margins = {name: _margin(value) for name, value in info.margins.items() if value is not None}
    tables: dict[str, Mapping[str, Any]] = {"Source and models": made, "Margins": margins}
    reports = {
        "Pairs by origin": info.origins,
        "Mining": info.mining,
        "Attributes": info.attributes,
        "Generation": info.generation,
        "Tokens": info.tokens,
        "Gates": info.gating,
        "Audit": info.audit,
    }
    for heading, report_ in reports.items():
        if report_ and report_.keys() <= splits:
            several = len(report_) > 1
            tables |= {f"{heading}, {name}" if several else heading: part for name, part in report_.items()}
        else:
            tables[heading] = report_
    return {heading: table for heading, table in tables.items() if not _is_empty(table)}


def _margin(value: Any) -> str:
    """Returns a margin as text: one of each miner as its option is given."""
    if isinstance(value, Mapping):
        return ", ".join(f"{miner}={share}" for miner, share in value.items())
    return str(value)


def _limits(info: DatasetCardInfo) -> list[str]:
    limits = [
        "A mined negative may answer its query all the same: filters lower the share of such false "
        "negatives, they do not end it.",
    ]
    if info.llm or info.strategy or info.generation:
        limits += [
            "Synthetic negatives are an LLM's inventions. What they state may be false, so they are no "
            "source of facts.",
            "Synthetic and mined texts can be told apart by style; train with both in each instance, or a "
            "model may learn that style instead of relevance.",
        ]
    if info.origins:
        limits.append(
            "Queries of origin written were written by an LLM and not asked by people; figures on them "
            "favour what resembles the writer."
        )
    if not info.licence:
        limits.append("No licence is stated; the source's terms apply to its texts.")
    return limits


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    negatives = interleave_sources(row.get("negatives") or [])
    return {
        "query": row["query"],
        "positive": row["positive"],
        "negatives": negatives[:EXAMPLE_NEGATIVES],
        "more": max(0, len(negatives) - EXAMPLE_NEGATIVES),
    }


def card_environment(filters: Mapping[str, Callable[..., Any]] = {}) -> Environment:
    """Returns the environment that cards are rendered in: everything is escaped unless marked."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    environment.filters |= {"cut": _cut, "line": _line, "report": report, "facts": _facts, **filters}
    return environment


def _cut(text: Any, chars: int = TEXT_CHARS) -> str:
    """One line, cut at a space. A blank line would end the HTML block and let Markdown in."""
    line = visible(" ".join(str(text).split()))
    return line if len(line) <= chars else line[:chars].rsplit(" ", 1)[0] + " …"


def _line(text: Any) -> Markup:
    """One line of running text in which nothing is Markdown or HTML."""
    plain = re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", _cut(text, 2000))
    return Markup(plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def code(text: str) -> Markup:
    """Text between double quotes in a fenced code block; what does not belong there is left out."""
    return Markup(re.sub(r"[^\w./-]", "", text))


def _facts(negative: Mapping[str, Any]) -> str:
    names = ("rank", "score", "teacher_score", "domain", "difficulty", "length", "verdict")
    values = {name: negative.get(name) for name in names}
    return ", ".join(f"{name} {number(value)}" for name, value in values.items() if value is not None)


def number(value: Any) -> str:
    """Returns a plain value for people: integers grouped, floats to four digits, texts on one line."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else _cut(value)


def report(value: Any) -> Markup:
    """A report as HTML tables, none within another; what is None, empty or zero is left out.

    A mapping has a row for each figure, those of a mapping in it under a heading. Mappings of mappings,
    one for each miner or gate say, have a table with a column for each of them; where they are three
    deep throughout, the innermost names are the columns. A list of mappings has a row for each.
    """
    if isinstance(value, Mapping):
        items = {name: item for name, item in value.items() if not _is_empty(item)}
        nested = {name: item for name, item in items.items() if isinstance(item, Mapping)}
        if nested and len(items) == len(nested):
            return report(next(iter(nested.values()))) if len(nested) == 1 else _columns(_pivot(nested))
        deep = {name: item for name, item in nested.items() if len(max(_leaves(item), key=len)) > 1}
        rows = [row for name, item in items.items() if name not in deep for row in _rows(name, item)]
        tables = [_table(rows)] if rows else []
        return Markup("").join(
            [*tables, *(_columns(_pivot(item), label(name)) for name, item in deep.items())]
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        if value and all(isinstance(item, Mapping) for item in value):
            return _columns([{label(name): part for name, part in item.items()} for item in value])
        return Markup("; ").join(
            Markup(", ").join(map(report, item)) if isinstance(item, list | tuple) else report(item)
            for item in value
        )
    return escape(number(value))


def label(name: str, *within: str) -> str:
    """Returns in plain words what a figure of a report is, by its name and those of what it is within."""
    words = RULES if "dropped" in within else _WORDS
    return words.get(name, name.replace("_", " "))


def _is_empty(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_empty(item) for item in value.values())
    if isinstance(value, list | tuple):
        return len(value) == 0
    return value is None or (value == 0 and not isinstance(value, bool))


def _leaves(
    mapping: Mapping[str, Any], path: tuple[str, ...] = (), empty: bool = False
) -> dict[tuple[str, ...], Any]:
    """Returns the leaves of nested mappings by their path; those that are empty only if `empty`."""
    leaves: dict[tuple[str, ...], Any] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, (*path, name), empty)
        elif empty or not _is_empty(value):
            leaves[*path, name] = value
    return leaves


def _pivot(mapping: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns nested mappings as the rows of one table, "" naming each row."""
    last = all(len(path) == 3 for path in _leaves(mapping))

    def place(path: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
        return (path[:-1], path[-1]) if last else (path[1:], path[0])

    cells = {place(path): value for path, value in _leaves(mapping).items()}
    columns = dict.fromkeys(column for _, column in cells)
    filled = {row for row, _ in cells}
    # In the report's own order, which a figure that is empty in the first column would upset.
    rows = dict.fromkeys(place(path)[0] for path in _leaves(mapping, empty=True))
    return [
        {
            "": ": ".join(label(name, *row[:i]) for i, name in enumerate(row)),
            **{column: cells.get((row, column)) for column in columns},
        }
        for row in rows
        if row in filled
    ]


def _rows(name: str, value: Any) -> list[Markup]:
    """Returns a figure's row, or those of a mapping of figures under their heading."""
    if not isinstance(value, Mapping):
        return [Markup("<tr><th>{}</th><td>{}</td></tr>").format(_cut(label(name)), report(value))]
    return [
        Markup('<tr><th colspan="2">{}</th></tr>').format(_cut(label(name))),
        *(
            Markup("<tr><th>{}</th><td>{}</td></tr>").format(_cut(label(part, name)), report(leaf))
            for (part,), leaf in _leaves(value).items()
        ),
    ]


def _columns(records: Sequence[Mapping[str, Any]], corner: str = "") -> Markup:
    names = list(dict.fromkeys(name for record in records for name in record))
    cells = [Markup("").join(_cell(record.get(name)) for name in names) for record in records]
    head = Markup("").join(Markup("<th>{}</th>").format(_cut(name or corner)) for name in names)
    return _table(Markup("<tr>{}</tr>").format(row) for row in [head, *cells])


def _table(rows: Iterable[Markup]) -> Markup:
    # No blank line: it would end the HTML block.
    return Markup("<table>\n{}</table>").format(Markup("").join(row + Markup("\n") for row in rows))


def _cell(value: Any) -> Markup:
    return Markup("<td>{}</td>").format("" if _is_empty(value) else report(value))
