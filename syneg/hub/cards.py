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
from syneg.rows import interleave_sources
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
        source_datasets: Hub ids of the data sets it derives from, for the YAML.
        licence: Licence identifier of the Hub, as in "apache-2.0" or "other".
        languages: ISO 639 codes.
        tags: Further tags.
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
    source_datasets: list[str] = field(default_factory=list)
    licence: str | None = None
    languages: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
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
            *(["synthetic"] if info.llm else []),
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
            {"name": name, "rows": split.num_examples, "bytes": sum(split.files.values())}
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
        "sizes": sizes,
        "nothing_dropped": "dropped" in folder.empty and "dropped" not in sizes,
        "num_negatives": sum(name.startswith("negative_") for name in triplet.features) if triplet else 0,
        "repo_id": code(info.repo_id or f"syneg/{info.name}"),
        "revision": code(f"v{info.version}") if info.version else None,
        "first_split": next(iter(folder.configs.get("default", {"train": None}))),
        "mixture": _mixture(sources),
        "tables": _tables(info),
        "prompt": info.prompt,
        "prompt_version": info.prompt_version,
        "examples": [_example(row) for row in examples],
        "limits": [*info.limits, *_limits(info)],
        "citation": Markup(CITATION),
    }


def _summary(info: DatasetCardInfo) -> str:
    text = "Hard negatives for training dense retrievers"
    text += f", made from {info.source}" if info.source else ""
    if info.llm or info.strategy:
        text += f"; synthetic ones written by {info.llm or 'an LLM'}"
        text += f" with the {info.strategy} prompt" if info.strategy else ""
    return text + "."


def _mixture(sources: set[str]) -> Markup:
    """Returns a mixture over sources that the data set has; the paper's is 1 synthetic + 2 mined."""
    mined = sorted(source for source in sources - {"synthetic"} if source.isidentifier())
    parts = ['"synthetic": 1'] if "synthetic" in sources else []
    chosen = "dense" if "dense" in mined else next(iter(mined), None)
    parts += [f'"{chosen}": 2'] if chosen else []
    return Markup("{" + ", ".join(parts) + "}")


def _tables(info: DatasetCardInfo) -> dict[str, Mapping[str, Any]]:
    made = {
        "source": info.source,
        "engine": info.engine,
        "model": info.llm,
        "strategy": info.strategy,
        "prompt version": info.prompt_version,
        **{name if "seed" in name else f"{name} seed": seed for name, seed in info.seeds.items()},
    }
    tables: dict[str, Mapping[str, Any]] = {
        "Source and model": {name: value for name, value in made.items() if value is not None},
        "Mining": info.mining,
        "Attributes": info.attributes,
        "Generation": info.generation,
        "Tokens": info.tokens,
        "Gates": info.gating,
        "Audit": info.audit,
    }
    return {name: table for name, table in tables.items() if _flatten(table)}


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
    """A report as an HTML table; what is None or empty is left out.

    A mapping of mappings, one for each miner or gate say, has a column for each of them and a row for
    each figure. Other mappings have a row for each item, with tables in tables where they are nested.
    A list of mappings has a row for each.
    """
    if isinstance(value, Mapping):
        items = {name: item for name, item in value.items() if not _is_empty(item)}
        if len(items) > 1 and all(isinstance(item, Mapping) for item in items.values()):
            figures = {name: _flatten(item) for name, item in items.items()}
            rows = list(dict.fromkeys(row for column in figures.values() for row in column))
            return _columns([{"": row, **{name: figures[name].get(row) for name in figures}} for row in rows])
        return _table(
            Markup("<tr><th>{}</th><td>{}</td></tr>").format(_cut(name), report(item))
            for name, item in items.items()
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        if value and all(isinstance(item, Mapping) for item in value):
            return _columns(value)
        return Markup("; ").join(report(item) for item in value)
    return escape(number(value))


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, Mapping | list | tuple) and len(value) == 0)


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested mappings, each named by its path."""
    leaves: dict[str, Any] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            leaves |= _flatten(value, f"{prefix}{name}: ")
        elif not _is_empty(value):
            leaves[f"{prefix}{name}"] = value
    return leaves


def _columns(records: Sequence[Mapping[str, Any]]) -> Markup:
    names = list(dict.fromkeys(name for record in records for name in record))
    cells = [Markup("").join(_cell(record.get(name)) for name in names) for record in records]
    head = Markup("").join(Markup("<th>{}</th>").format(_cut(name)) for name in names)
    return _table(Markup("<tr>{}</tr>").format(row) for row in [head, *cells])


def _table(rows: Iterable[Markup]) -> Markup:
    # No blank line: it would end the HTML block.
    return Markup("<table>\n{}</table>").format(Markup("").join(row + Markup("\n") for row in rows))


def _cell(value: Any) -> Markup:
    return Markup("<td>{}</td>").format("" if value is None else report(value))
