"""Examples: real queries that those written are to be like, from a file or from the source's own pairs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from syneg.errors import InputError
from syneg.llm.requests import digest
from syneg.sources import Source, load_source
from syneg.sources.pairs import POSITIVE_COLUMNS
from syneg.sources.tables import format_of, read_table
from syneg.text import normal_text
from syneg.writing.queries import query_line
from syneg.writing.query_arguments import QueryArguments
from syneg.writing.query_strategy import QUERY, RealQuery

_DOCUMENT = "doc_id"


@dataclass
class Examples:
    """Real queries with their documents.

    Attributes:
        shown: Those that the prompt shows.
        document_ids: The documents of the source among theirs.
        origin: Where they come from, for people; None where there are none.
        of: How many there were to draw from.
        left_out: How many were left out since the source holds them out for evaluation.
    """

    shown: list[RealQuery] = field(default_factory=list)
    document_ids: list[str] = field(default_factory=list)
    origin: str | None = None
    of: int = 0
    left_out: int = 0

    def lines(self) -> list[str]:
        """Returns what a person should know of them."""
        if self.origin is None:
            return []
        lines = [f"examples: {len(self.shown)} of {self.of:,} real queries, from {self.origin}"]
        if self.left_out:
            lines.append(f"  left out, since the source holds them out: {self.left_out:,}")
        return lines


def read_examples(
    source: Source,
    splits: Sequence[str],
    args: QueryArguments,
    seed: int,
    held_out: Sequence[str],
    relevant: Collection[str],
) -> Examples:
    """Returns the examples that the prompt shows: the user's own, or drawn from the source's pairs.

    None has the text of a held-out query; of the source's own none has a document relevant to one.

    Args:
        source: The source.
        splits: Its splits that examples may be drawn from.
        args: The file of examples, and how many are shown.
        seed: Seed of the draw.
        held_out: Queries of the source's other splits.
        relevant: The documents relevant to these.

    Raises:
        InputError: For a file that cannot be used; names the line.
    """
    examples = Examples()
    if not args.num_examples:
        return examples
    closed = set(map(normal_text, held_out))
    if args.examples is not None:
        examples.origin = Path(args.examples).name
        found = list(_from_file(args.examples, source))
        examples.of = len(found)
        order = sorted(range(len(found)), key=lambda i: digest(seed, "example", found[i][1].query, i))
        drawn: Iterator[tuple[str | None, RealQuery]] = (found[i] for i in order)
    else:
        own = [
            split
            for split in splits
            if any(_has_positive(source, split, query) for query in source.qrels.get(split, {}))
        ]
        if not own:
            return examples
        examples.origin = f"split {', '.join(own)} of the source"
        examples.of = sum(len(source.pairs(split)) for split in own)
        drawn = (one for split in own for one in _from_split(source, split, seed, relevant))
    seen: set[str] = set()
    for document_id, example in drawn:
        words = normal_text(example.query)
        if words in closed:
            examples.left_out += 1
        elif words not in seen:
            seen.add(words)
            examples.shown.append(example)
            examples.document_ids += [document_id] if document_id is not None else []
        if len(examples.shown) == args.num_examples:
            break
    if args.examples is not None and not examples.shown:
        raise InputError(f"--examples {args.examples}: all of its queries are held out by the source.")
    return examples


def _has_positive(source: Source, split: str, query: str) -> bool:
    return any(relevance > 0 for relevance in source.qrels[split][query].values())


def _from_split(
    source: Source, split: str, seed: int, relevant: Collection[str]
) -> Iterator[tuple[str, RealQuery]]:
    pairs = source.pairs(split)
    queries, documents = source.query_ids[pairs.query_rows], source.document_ids[pairs.positive_rows]
    names = list(zip(queries, documents, strict=True))
    order = sorted(range(len(names)), key=lambda i: digest(seed, "example", *names[i]))
    for pair in pairs.select(i for i in order if names[i][1] not in relevant):
        yield pair.positive_id, RealQuery(pair.query, pair.positive)


def _from_file(spec: str, source: Source) -> list[tuple[str | None, RealQuery]]:
    path = Path(spec)
    rows = read_table(path) if path.is_file() and format_of(path) is not None else iter(())
    first = next(rows, None)
    if first is not None and QUERY in first[1] and not set(POSITIVE_COLUMNS) & first[1].keys():
        return [_by_id(record, source, where) for where, record in chain([first], rows)]
    known = set(source.document_ids)
    return [
        (pair.positive_id if pair.positive_id in known else None, RealQuery(pair.query, pair.positive))
        for pair in load_source(spec).pairs("train")
    ]


def _by_id(record: Mapping[str, Any], source: Source, where: str) -> tuple[str | None, RealQuery]:
    """Reads a query with the id of a document of the source, or alone."""
    texts = query_line(record, where, (QUERY,), (_DOCUMENT,))
    name = texts.get(_DOCUMENT)
    if name is None:
        return None, RealQuery(texts[QUERY])
    row = int(source.document_ids.get_indexer([name])[0])
    if row < 0:
        raise InputError(
            f"{where}: document {name!r} is not in the source; give its text in a column 'positive'."
        )
    return name, RealQuery(texts[QUERY], source.documents([row])[0])
