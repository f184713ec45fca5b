"""Gates of written queries: which of them are kept, and why the others are not.

Checks (what can be told without a model), leaks (queries of the source's other splits), duplicates across
documents, the round trip (the document must come back for its query), generality (many documents score
like it) and the judge. Each is counted and can be left out; what a gate drops is kept with its reason.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.sparse import csr_array
from tqdm.auto import tqdm

from syneg.config import split_commas
from syneg.encoders import load_encoder
from syneg.errors import InputError, unknown
from syneg.gating import patterns
from syneg.gating.arguments import GatingArguments
from syneg.gating.judge import UNCLEAR, VerdictsTask
from syneg.gating.verdicts import RecordedVerdicts, open_verdicts, recorded_name
from syneg.llm.arguments import LLMArguments
from syneg.llm.generation import Completions
from syneg.llm.journal import Journal
from syneg.llm.requests import Engine, Outcome
from syneg.mining.arguments import MiningArguments
from syneg.mining.bm25 import BM25Miner
from syneg.mining.cache import document_keys
from syneg.mining.candidates import MISSING, Candidates, Miner
from syneg.mining.dense import DenseMiner
from syneg.rows import make_negative, make_row
from syneg.sources import QUERY_FEATURES, Source
from syneg.text import normal_text, pieces, units
from syneg.writing.arguments import GenerationArguments
from syneg.writing.query_arguments import QueryArguments

QUERY_GATES = ("checks", "leaks", "duplicates", "round_trip", "general", "judge")
"""In the order in which they are applied."""

_COPIED_PIECES = 8
"""Pieces (of about four letters) in a sequence that counts as copied: about five words."""
_BLOCK = 2048
"""Queries compared at once."""
_PUNCTUATION = ".,;:!?…\"'`()[]“”‘’«»。，、；：！？「」『』（）"
_SPEAKS = re.compile(
    r"\b(?:according to|based on|described in|mentioned in|discussed in|stated in|given in|from) "
    r"(?:the|this) (?:(?:given|above|provided) )?(?:document|passage|text|article|excerpt|abstract)\b"
    r"|\b(?:this|the above|the given|the provided) (?:document|passage|text|excerpt)\b",
    re.IGNORECASE,
)


def _as_in(kind: type, name: str) -> Any:
    """Returns a field that is the same as in another stage's arguments, with its default and its help."""
    one = {one.name: one for one in dataclasses.fields(kind)}[name]
    return field(default=one.default, metadata=one.metadata)


@dataclass
class QueryGateArguments:
    """Which written queries are kept.

    Raises:
        InputError: For an unknown gate or miner, or a value out of its range.
    """

    gates: list[str] = field(
        default_factory=lambda: ["checks", "leaks", "duplicates", "round_trip"],
        metadata={"help": f"Gates of written queries: {', '.join(QUERY_GATES)}; none for none."},
    )
    round_trip: list[str] = field(
        default_factory=lambda: ["bm25", "dense"],
        metadata={"help": "Gate round_trip: miners that look for a query's document: bm25, dense."},
    )
    round_trip_k: int = field(
        default=20,
        metadata={"help": "Gate round_trip: the document must be among so many first for its query."},
    )
    round_trip_by: str = field(
        default="any",
        metadata={
            "help": "Gate round_trip: whether any of the miners must find it, or all.",
            "choices": ["any", "all"],
        },
    )
    general_documents: int = field(
        default=20,
        metadata={
            "help": "Gate general: a query is too general where so many other documents score like its own, "
            "by the last miner of --round_trip."
        },
    )
    general_margin: float = field(
        default=0.05,
        metadata={
            "help": "Gate general: m in 'score >= own document's - |own| * m', which counts as like it."
        },
    )
    max_copied: float = field(
        default=0.8,
        metadata={
            "help": "Gate checks: largest share of a query's sequences of about five words that its document "
            "has too."
        },
    )
    leak_similarity: float = field(
        default=0.8,
        metadata={
            "help": "Gates leaks and duplicates: Jaccard similarity of words from which a query is nearly "
            "one of the source's other splits, or (--with_pairs) a real one of its document; 1 for the same "
            "words."
        },
    )
    encoder: str = _as_in(MiningArguments, "encoder")
    bm25_language: str = _as_in(MiningArguments, "bm25_language")
    bm25_tokenizer: str = _as_in(MiningArguments, "bm25_tokenizer")
    query_prompt: str | None = _as_in(MiningArguments, "query_prompt")
    document_prompt: str | None = _as_in(MiningArguments, "document_prompt")
    encode_max_length: int | None = _as_in(MiningArguments, "encode_max_length")
    encode_precision: str = _as_in(MiningArguments, "encode_precision")
    mining_device: str | None = _as_in(MiningArguments, "mining_device")
    mining_cache: str | None = _as_in(MiningArguments, "mining_cache")
    judge_keep: str = field(
        default="partly",
        metadata={
            "help": "Gate judge: verdicts on its own document with which a query is kept: yes, or partly "
            "too.",
            "choices": ["yes", "partly"],
        },
    )
    judge_engine: str | None = _as_in(GatingArguments, "judge_engine")
    judge_llm: str | None = _as_in(GatingArguments, "judge_llm")
    judge_recordings: str | None = _as_in(GatingArguments, "judge_recordings")

    def __post_init__(self) -> None:
        self.gates = [name for name in split_commas(self.gates) if name != "none"]
        self.round_trip = split_commas(self.round_trip)
        for kind, names, known in (
            ("gate", self.gates, (*QUERY_GATES, "none")),
            ("miner in --round_trip", self.round_trip, ("bm25", "dense")),
        ):
            for name in names:
                if name not in known:
                    raise unknown(kind, name, known)
        if {"round_trip", "general"} & set(self.gates) and not self.round_trip:
            raise InputError("--round_trip names no miner; name bm25, dense or both.")
        for name in ("round_trip_k", "general_documents"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: must be at least 1.")
        if not 0 < self.leak_similarity <= 1:
            raise InputError(f"--leak_similarity {self.leak_similarity}: must be above 0 and at most 1.")
        for name in ("max_copied", "general_margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"--{name} {getattr(self, name)}: must be between 0 and 1.")
        for name, known in (("round_trip_by", ("any", "all")), ("judge_keep", ("yes", "partly"))):
            if getattr(self, name) not in known:
                raise unknown(f"value of --{name}", getattr(self, name), known)

    def mining(self) -> MiningArguments:
        """Returns the arguments of the miners of the round trip."""
        return MiningArguments(
            miners=self.round_trip,
            encoder=self.encoder,
            bm25_language=self.bm25_language,
            bm25_tokenizer=self.bm25_tokenizer,
            query_prompt=self.query_prompt,
            document_prompt=self.document_prompt,
            encode_max_length=self.encode_max_length,
            encode_precision=self.encode_precision,
            mining_device=self.mining_device,
            mining_cache=self.mining_cache,
        )


@dataclass
class WrittenQuery:
    """A written query on its way through the gates.

    Attributes:
        id: Its id in the written source.
        text: The query; a completion that could not be read, where `gate` is "parse".
        row: Row of its document in the corpus.
        document_id: The document.
        place: Which request it came of, by its position.
        kind: The kind that was asked for, or None.
        beside_query_id: The query whose mined negative its document is, or None.
        reasoning: What the LLM wrote before it, or None.
        generator: Who wrote it.
        gate: The gate that dropped it, or None.
        cause: Why, as it is counted.
        reason: Why, as it is kept.
    """

    id: str
    text: str
    row: int
    document_id: str
    place: int
    kind: str | None = None
    reasoning: str | None = None
    generator: str = ""
    gate: str | None = None
    cause: str = ""
    reason: str = ""
    beside_query_id: str | None = None

    def drop(self, gate: str, cause: str, reason: str) -> None:
        """Says that a gate drops it, and why."""
        self.gate, self.cause, self.reason = gate, cause, reason


@dataclass
class QueryTolls:
    """What the gates took.

    Attributes:
        read: Queries that came to each gate, by its name, in order.
        dropped: Queries dropped, by gate and cause.
        notes: What else a gate has to say, for people.
    """

    read: dict[str, int] = field(default_factory=dict)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns the counts by gate."""
        return {
            gate: {
                "read": read,
                "dropped": {cause: n for (one, cause), n in sorted(self.dropped.items()) if one == gate},
            }
            for gate, read in self.read.items()
        }

    def lines(self) -> list[str]:
        """Returns the counts for people."""
        lines = []
        for gate, told in self.to_dict().items():
            causes = ", ".join(f"{cause} {n:,}" for cause, n in told["dropped"].items())
            total = sum(told["dropped"].values())
            lines.append(
                f"gate {gate}: {total:,} of {told['read']:,} queries dropped" + f" ({causes})" * bool(causes)
            )
        return lines + self.notes


def gate_queries(
    queries: Sequence[WrittenQuery],
    source: Source,
    args: QueryGateArguments,
    *,
    held_out: Sequence[str] = (),
    examples: Sequence[str] = (),
    real: Sequence[tuple[str, str]] = (),
    judge: QueryJudge | None = None,
) -> QueryTolls:
    """Sends written queries through the gates, cheap ones first; what is dropped says so itself.

    Args:
        queries: The queries. Those that have a gate already are passed over.
        source: The corpus that they were written for.
        args: Which gates, and their bounds.
        held_out: Queries of the source that none may be like: those of its other splits.
        examples: The queries that the prompt showed.
        real: Queries that they are to stand beside, each with the id of a document relevant to it.
        judge: Asks the LLM; for the gate `judge`.

    Returns:
        What was dropped, counted.

    Raises:
        InputError: For what a miner or the judge cannot use.
    """
    tolls = QueryTolls()
    gates = {
        "checks": lambda alive: _check(alive, source, args),
        "leaks": lambda alive: _check_leaks(alive, held_out, args.leak_similarity),
        "duplicates": lambda alive: _check_duplicates(alive, examples, real, args.leak_similarity),
        "round_trip": lambda alive: _Retrieval(alive, source, args).round_trip(),
        "general": lambda alive: _Retrieval(alive, source, args).general(),
        "judge": lambda alive: judge.apply(alive) if judge is not None else None,
    }
    for name in QUERY_GATES:
        alive = [query for query in queries if query.gate is None]
        if name not in args.gates or not alive:
            continue
        tolls.read[name] = len(alive)
        gates[name](alive)
    tolls.dropped.update((query.gate, query.cause) for query in queries if query.gate in tolls.read)
    if "leaks" in tolls.read and not held_out:
        tolls.notes.append("gate leaks: the source has no queries of other splits to compare with")
    return tolls


def check_miners(source: Source, args: QueryGateArguments) -> None:
    """Checks, before an LLM is asked for hours, that the miners of the gates can be used; indexes for BM25.

    Raises:
        InputError: For an encoder that cannot be loaded, or a language that BM25 does not know.
    """
    if not {"round_trip", "general"} & set(args.gates):
        return
    if "bm25" in args.round_trip:
        BM25Miner(source, args.mining())
    if "dense" in args.round_trip:
        load_encoder(args.encoder, device="cpu")


def _check(queries: Sequence[WrittenQuery], source: Source, args: QueryGateArguments) -> None:
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        for query, document in zip(block, source.documents([one.row for one in block]), strict=True):
            signs = (
                ("refusal", "It reads as a refusal", patterns.refusal),
                ("leaked format", "It holds what belongs to the answer's format", patterns.leaked_format),
                ("speaks of the document", "It speaks of the document", _speaks),
            )
            for cause, reason, find in signs:
                found = find(query.text)
                # What the document has too is the source's own style.
                if found and not find(document):
                    query.drop("checks", cause, f"{reason}: {found}.")
                    break
            else:
                share = _copied_share(query.text, document)
                if share > args.max_copied:
                    reason = f"{share:.0%} of its sequences of about five words are in the document."
                    query.drop("checks", "copy of the text", reason)


def _speaks(text: str) -> str | None:
    found = _SPEAKS.search(text)
    return repr(found.group()) if found else None


def _copied_share(text: str, original: str) -> float:
    """Returns which share of a text's sequences of pieces stand in the original too, in any script."""
    own, other = pieces(f" {_words(text)}"), pieces(f" {_words(original)}")
    if own == other:
        return 1.0
    sequences = {tuple(own[i : i + _COPIED_PIECES]) for i in range(len(own) - _COPIED_PIECES + 1)}
    others = {tuple(other[i : i + _COPIED_PIECES]) for i in range(len(other) - _COPIED_PIECES + 1)}
    return len(sequences & others) / len(sequences) if sequences else 0.0


def _words(text: str) -> str:
    """Returns a text in the form in which queries count as equal: punctuation round its words aside.

    Signs stay that tell one query from another, as in C++ and ``a < b``.
    """
    normal = normal_text(text)
    return " ".join(word for part in normal.split() if (word := part.strip(_PUNCTUATION))) or normal


def _check_leaks(queries: Sequence[WrittenQuery], held_out: Sequence[str], threshold: float) -> None:
    """Drops queries that have nearly the words of a held-out one: characters, in scripts without blanks."""
    if not held_out:
        return
    # Of equal words the first stands for all, so that the matrix has no row twice.
    others = list(dict.fromkeys(map(_words, held_out)))
    vocabulary: dict[str, int] = {}
    known = _incidence(others, vocabulary)
    sizes = known.sum(axis=1)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        words = [_words(query.text) for query in block]
        own = _incidence(words, dict(vocabulary), columns=len(vocabulary))
        counts = np.array([len(set(units(text))) for text in words])
        shared = (own @ known.T).tocoo()
        similarity = shared.data / (counts[shared.row] + sizes[shared.col] - shared.data)
        best: dict[int, tuple[float, int]] = {}
        for i, j, value in zip(shared.row, shared.col, similarity, strict=True):
            best[int(i)] = max(best.get(int(i), (0.0, 0)), (float(value), int(j)))
        for i, (value, j) in best.items():
            if words[i] == others[j] or value >= threshold:
                cause = "equal to a held-out query" if words[i] == others[j] else "near to a held-out query"
                reason = f"The source has a held-out query like it, similarity {value:.2f}."
                block[i].drop("leaks", cause, reason)


def _incidence(texts: Iterable[str], vocabulary: dict[str, int], columns: int | None = None) -> csr_array:
    """Returns which words each text has, shape (texts, words); new ones only where `columns` is None."""
    rows, places, count = [], [], 0
    for count, text in enumerate(texts, start=1):
        for word in set(units(text)):
            place = vocabulary.setdefault(word, len(vocabulary))
            if columns is None or place < columns:
                rows.append(count - 1)
                places.append(place)
    shape = (count, len(vocabulary) if columns is None else columns)
    return csr_array((np.ones(len(rows), dtype=np.int32), (rows, places)), shape=shape)


def _check_duplicates(
    queries: Sequence[WrittenQuery],
    examples: Sequence[str],
    real: Sequence[tuple[str, str]],
    threshold: float,
) -> None:
    """Drops what several documents would answer, what a document has twice, and what is an example's."""
    shown = set(map(_words, examples))
    _check_real(queries, real, threshold)
    queries = [query for query in queries if query.gate is None]
    groups: dict[str, list[WrittenQuery]] = {}
    for query in queries:
        groups.setdefault(_words(query.text), []).append(query)
    for words, group in groups.items():
        documents = {query.document_id for query in group}
        first = group[0]
        for query in group:
            if words in shown:
                query.drop("duplicates", "an example's query", "The prompt showed this query as an example.")
            elif len(documents) > 1:
                reason = f"The same query was written for {len(documents)} documents."
                query.drop("duplicates", "written for several documents", reason)
            elif query is not first:
                reason = f"It is query {first.id} of the same document."
                query.drop("duplicates", "twice for its document", reason)


def _check_real(queries: Sequence[WrittenQuery], real: Sequence[tuple[str, str]], threshold: float) -> None:
    """Drops what is nearly a real query of the same document, or a real query of another one."""
    of_document: dict[str, list[set[str]]] = {}
    texts: dict[str, set[str]] = {}
    for text, name in real:
        words = _words(text)
        of_document.setdefault(name, []).append(set(units(words)))
        texts.setdefault(words, set()).add(name)
    for query in queries if real else ():
        words = _words(query.text)
        own = set(units(words))
        others = of_document.get(query.document_id, [])
        best = max((len(own & one) / (len(own | one) or 1) for one in others), default=0.0)
        if query.document_id in texts.get(words, ()) or best >= threshold:
            reason = f"Its document has a real query like it, similarity {best:.2f}."
            query.drop("duplicates", "a real query of its document", reason)
        elif words in texts:
            reason = f"It is a real query of {sorted(texts[words])[0]}."
            query.drop("duplicates", "a real query of another document", reason)


class _Retrieval:
    """Searches the corpus for written queries with the miners of the round trip."""

    def __init__(self, queries: Sequence[WrittenQuery], source: Source, args: QueryGateArguments) -> None:
        self.queries, self.args = queries, args
        texts = {"id": [query.id for query in queries], "text": [query.text for query in queries]}
        asked = Dataset.from_dict(texts, features=QUERY_FEATURES)
        self.source = Source(source.name, source.corpus, asked, {})
        self.rows = np.arange(len(queries))
        self.own = np.array([query.row for query in queries])
        # A document with the same text is as good.
        self.keys = document_keys(source)

    def round_trip(self) -> None:
        """Drops queries whose document is not among the first k."""
        args = self.args
        k = args.round_trip_k
        found = [self._found(self._miner(name).search(self.rows, k)) for name in args.round_trip]
        kept = np.any(found, axis=0) if args.round_trip_by == "any" else np.all(found, axis=0)
        for i in np.flatnonzero(~kept):
            failed = [name for name, one in zip(args.round_trip, found, strict=True) if not one[i]]
            reason = f"Its document is not among the first {k} by {' and '.join(failed)}."
            self.queries[i].drop("round_trip", f"not among the first {k}", reason)

    def general(self) -> None:
        """Drops queries for which many documents score like their own."""
        args = self.args
        miner = self._miner(args.round_trip[-1])
        found = miner.search(self.rows, args.general_documents + 1)
        own = miner.score(self.rows, self.own)
        others = (found.rows != MISSING) & ~self._is_own(found)
        least = own - np.abs(own) * args.general_margin
        counts = (others & (found.scores >= least[:, None])).sum(axis=1)
        for i in np.flatnonzero(counts >= args.general_documents):
            reason = f"At least {counts[i]} other documents score like its own by {miner.name}."
            self.queries[i].drop("general", "many documents score like its own", reason)

    def _miner(self, name: str) -> Miner:
        args = self.args.mining()
        return BM25Miner(self.source, args) if name == "bm25" else DenseMiner(self.source, args, self.rows)

    def _found(self, candidates: Candidates) -> np.ndarray:
        return (self._is_own(candidates) & (candidates.rows != MISSING)).any(axis=1)

    def _is_own(self, candidates: Candidates) -> np.ndarray:
        return self.keys[candidates.rows] == self.keys[self.own][:, None]


class QueryJudge:
    """Asks an LLM whether the passage that a query was written for satisfies it; answers are journalled.

    Args:
        args: Who judges, and what follows from a verdict.
        asked: Engine, LLM and limits, where `args` names no others.
        journal: The judge's journal, or its folder.
        passages: Gives the passage that a query was written for, for queries in order.
        seed: Seed of the sampling where an answer is asked for again.
        engine: An engine that runs already, and is left running.

    Raises:
        InputError: For an unknown engine, or recordings that cannot be used.
    """

    def __init__(
        self,
        args: QueryGateArguments,
        asked: QueryArguments,
        journal: Journal | str | Path,
        passages: Callable[[Sequence[WrittenQuery]], Iterable[str]],
        seed: int = 0,
        engine: Engine | None = None,
    ) -> None:
        self.args = args
        common = {one.name: getattr(asked, one.name) for one in dataclasses.fields(LLMArguments)}
        common |= {"engine": args.judge_engine or asked.engine, "llm": args.judge_llm or asked.llm}
        common |= {"shard": None, "query_kind": asked.query_kind, "document_kind": asked.document_kind}
        generation = GenerationArguments(**common)
        # A passage with its title, and what the estimate is off by.
        generation.max_positive_tokens = 2 * asked.max_positive_tokens
        recordings = open_verdicts(args.judge_recordings) if generation.engine == "recorded" else None
        if isinstance(recordings, RecordedVerdicts):
            generation.llm = recorded_name(recordings.path)
        self._task = VerdictsTask(generation, seed, evidence=not isinstance(recordings, RecordedVerdicts))
        self._completions = Completions(generation, journal, recordings, engine)
        self._passages = passages

    def apply(self, queries: Sequence[WrittenQuery]) -> None:
        """Drops queries that their own passage does not satisfy.

        Raises:
            InputError: For an engine that cannot be used. The journal keeps every answer.
        """
        with tqdm(total=len(queries), desc="Judging", unit="query") as bar:

            def settled(i: int, outcome: Outcome) -> None:
                bar.update()
                self._read(queries[i], outcome)

            try:
                self._completions.settle(self._task, self._requests(queries), settled)
            finally:
                self._completions.close()

    def _requests(self, queries: Sequence[WrittenQuery]) -> Iterator[tuple[int, Any]]:
        for i, (query, passage) in enumerate(zip(queries, self._passages(queries), strict=True)):
            row = make_row(query.id, query.text, query.document_id, passage)
            document = make_negative(passage, "written", doc_id=query.document_id)
            yield i, next(self._task.requests((row, document)))

    def _read(self, query: WrittenQuery, outcome: Outcome) -> None:
        last = outcome.attempts[-1] if outcome.attempts else None
        if last is None or not last.results:
            why = "no answer came" if last is None else str(last.failure)
            query.drop("judge", f"verdict {UNCLEAR!r}", f"The judge's verdict could not be read: {why}.")
            return
        verdict, detail = last.results[0]["verdict"], last.results[0]["detail"]
        if verdict == "no" or (verdict == "partly" and self.args.judge_keep == "yes"):
            query.drop("judge", f"verdict {verdict!r}", f"Its document does not satisfy it: {detail}")
