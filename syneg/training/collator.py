"""`SyNegCollator`: rows in, one batch for `ContrastiveTrainer` out.

It draws each row's negatives, finds equal texts, tokenises every text once and leaves the padding to
the trainer. It runs in the data loader's workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from syneg.errors import InputError
from syneg.rows import SYNTHETIC
from syneg.training.columns import Columns, TrainingRow, read_row, text_id
from syneg.training.instances import Instances, keys_of_ids, keys_of_texts, keys_of_words
from syneg.training.mixing import Draw, Mixture
from syneg.training.texts import tokenize

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from syneg.training.sampling import StreamedStep

EmptyRows = Literal["error", "in_batch"]


class SyNegCollator:
    """Draws negatives and tokenises.

    Rows may be those of a hard-negative data set, triplets (anchor, positive, negative), n-tuples
    (negative_1 ... negative_k), or hold lists of texts. Queries are read from a column named query, anchor,
    question or sentence1; positives from positive, pos, answer, passage, document or sentence2; negatives
    from all columns that `NEGATIVE_COLUMNS` tells, together. A column of several negatives may also hold a
    list in JSON. Other columns whose names look like negatives are an error that names them.

    A query is its text as well as its ``query_id``: no other positive of it that `learn_positives` knows is
    drawn, nor an in-batch negative.

    A row that has no negative at all, under a mixture that asks for some, is an error that names the row;
    with ``empty_rows="in_batch"`` it is trained with in-batch negatives only, and counted.

    Args:
        model: The model; its tokenizer, its longest length and its prompts are used.
        mixture: How many negatives of each source; in any form that `Mixture.parse` takes. None takes
            every negative of the row.
        seed: Seed of the draws.
        num_epochs: How many epochs there will be, for a curriculum. The trainer sets it.
        query_prompt: Put before every query; `model.prompts["query"]` where None.
        document_prompt: Put before every document; `model.prompts["document"]` (or "passage", "corpus")
            where None.
        empty_rows: "error" or "in_batch", see above.

    Raises:
        InputError: For a mixture that cannot be read, or an unknown value of `empty_rows`.
    """

    # Read by sentence-transformers' trainer; our batches carry no labels.
    valid_label_columns: tuple[str, ...] = ()

    def __init__(
        self,
        model: SentenceTransformer,
        mixture: Mixture | Mapping[str, float] | str | None = None,
        seed: int = 0,
        *,
        num_epochs: int = 1,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        empty_rows: str = "error",
    ) -> None:
        if empty_rows not in get_args(EmptyRows):
            raise InputError(f"empty_rows={empty_rows!r}: write one of {', '.join(get_args(EmptyRows))}.")
        self.model = model
        self.mixture = Mixture.everything() if mixture is None else Mixture.parse(mixture)
        self.seed = seed
        self.num_epochs = num_epochs
        self.empty_rows = empty_rows
        self.prompts = _prompts(model, query_prompt, document_prompt)
        # Keys of queries and of their positives, sorted by the queries'; shape (pairs,).
        self._known = np.zeros((2, 0), dtype=np.int64)
        # Shared memory, so that `set_epoch` reaches workers that are already running.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch that draws are for, from 0."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, also in workers that are already running."""
        self._epoch.fill_(epoch)

    def learn_positives(self, rows: Any) -> None:
        """Learns every query's positives, so that none of them counts as a negative of it.

        Args:
            rows: A `Dataset`; one without columns of queries and positives is left alone.
        """
        try:
            columns = Columns.among(tuple(rows.column_names or ()))
        except InputError:
            return
        ids = [name for name in ("query_id", "positive_id") if name in rows.column_names]
        pairs = [self._known]
        names = [columns.query, columns.positive, *ids]
        for batch in rows.select_columns(names).with_format(None).iter(batch_size=10_000):
            queries = [keys_of_texts(batch[columns.query]), _keys_of_column(batch, "query_id")]
            positives = [keys_of_texts(batch[columns.positive]), _keys_of_column(batch, "positive_id")]
            pairs += [np.stack([query, positive]) for query in queries for positive in positives]
        found = np.concatenate(pairs, axis=1)
        found = found[:, (found != 0).all(axis=0)]
        found = found[:, np.lexsort(found[::-1])]
        new = np.ones(found.shape[1], dtype=bool)
        new[1:] = (found[:, 1:] != found[:, :-1]).any(axis=0)
        self._known = found[:, new]

    def read(self, row: Mapping[str, Any]) -> TrainingRow:
        """Returns a row, read; its negatives only where the mixture asks for some.

        Raises:
            InputError: See `read_row`.
        """
        return read_row(row, self.mixture.asks_for_negatives)

    def collate_step(self, step: StreamedStep) -> dict[str, Any]:
        """Returns the batch of a step of a stream, which knows its epoch."""
        return self(step.rows, step.epoch) | {"epoch": step.epoch, "ends_epoch": step.ends_epoch}

    def __call__(self, rows: Sequence[Mapping[str, Any]], epoch: int | None = None) -> dict[str, Any]:
        """Returns a batch.

        Args:
            rows: The rows; may be empty, where a process has no share of the last batch.
            epoch: The epoch that draws are for; the one that was set where None.

        Returns:
            ``instances`` and ``texts`` in the forms of `Instances` and `Texts` (as mappings of tensors,
            which the data loader can pin), and for the record ``row_ids``, ``sources`` (name by key) and
            ``counts``.

        Raises:
            InputError: For a row without query or positive, or without negatives where that is an error.
        """
        read = [self.read(row) for row in rows]
        known = self._known_keys(read)
        draws = [self.draw(row, keys, epoch) for row, keys in zip(read, known, strict=True)]
        positions: dict[tuple[str, str], int] = {}
        doc_ids: dict[int, str] = {}

        def position(side: str, text: str, doc_id: str | None = None) -> int:
            place = positions.setdefault((self.prompts[side], text), len(positions))
            if doc_id is not None:
                doc_ids.setdefault(place, doc_id)
            return place

        query = [position("query", row.query) for row in read]
        positive = [position("document", row.positive, row.positive_id) for row in read]
        negatives = [[position("document", n.text, n.doc_id) for n in draw.negatives] for draw in draws]
        if not positions:
            # A process must take part in every exchange, so it embeds something.
            position("query", "")
        text_keys = keys_of_texts(text for _, text in positions)
        doc_keys = np.zeros(len(positions), dtype=np.int64)
        doc_keys[list(doc_ids)] = keys_of_ids(list(doc_ids.values()))
        names = sorted({n.source for draw in draws for n in draw.negatives})
        sources = dict(zip(names, keys_of_words(names).tolist(), strict=True))
        instances = Instances(
            query=torch.tensor(query, dtype=torch.int64),
            positive=torch.tensor(positive, dtype=torch.int64),
            negatives=_table(negatives, -1),
            source=_table([[sources[n.source] for n in draw.negatives] for draw in draws], 0),
            known=_table([sorted(keys) for keys in known], 0),
            query_key=torch.from_numpy(text_keys[query] if query else np.zeros(0, dtype=np.int64)),
            text_key=torch.from_numpy(text_keys),
            doc_key=torch.from_numpy(doc_keys),
            teacher=_teacher(draws),
        )
        return {
            "instances": vars(instances),
            "texts": vars(tokenize(self.model, list(positions))),
            "row_ids": [row.identity for row in read],
            "sources": {key: name for name, key in sources.items()},
            "counts": _counts(draws),
        }

    def draw(self, row: TrainingRow, known: set[int] | None = None, epoch: int | None = None) -> Draw:
        """Draws one row's negatives.

        Args:
            row: The row.
            known: What `_known_keys` gives for it, where that is there already.
            epoch: The epoch; the one that was set where None.

        Raises:
            InputError: For a row without negatives where that is an error.
        """
        known = self._known_keys([row])[0] if known is None else known
        # Judged by id as well as by text: an id names a positive whose text may differ.
        texts = keys_of_texts(candidate.text for candidate in row.candidates).tolist()
        ids = keys_of_ids([candidate.doc_id or "" for candidate in row.candidates]).tolist()
        candidates = [
            candidate
            for candidate, text, doc_id in zip(row.candidates, texts, ids, strict=True)
            if text not in known and (candidate.doc_id is None or doc_id not in known)
        ]
        draw = self.mixture.draw(
            candidates,
            seed=self.seed,
            epoch=self.epoch if epoch is None else epoch,
            identity=row.identity,
            num_epochs=self.num_epochs,
            forbidden={row.query, row.positive},
        )
        if self.mixture.asks_for_negatives and not draw.negatives and self.empty_rows == "error":
            only = any(one.source == SYNTHETIC for one in candidates)
            hint = f"It has {SYNTHETIC} ones: name them, as in --mixture {SYNTHETIC}=1. " if only else ""
            raise InputError(
                f"row {row.identity!r} has no negative, but the mixture '{self.mixture}' asks for some. "
                f"{hint}Leave such rows out, or train them on in-batch negatives alone with --empty_rows "
                "in_batch."
            )
        return draw

    def _known_keys(self, rows: Sequence[TrainingRow]) -> list[set[int]]:
        """Returns for each row the keys of its query and of all that is known as the query's positives."""
        if not rows:
            return []
        queries = keys_of_texts(row.query for row in rows)
        query_ids, positive_ids = (
            _keys_of_given([getattr(row, name) for row in rows]) for name in ("query_id", "positive_id")
        )
        own = np.stack([queries, keys_of_texts(row.positive for row in rows), positive_ids], axis=1)
        found = [set(keys) - {0} for keys in own.tolist()]
        for keys in (queries, query_ids):
            begin, end = (np.searchsorted(self._known[0], keys, side=side) for side in ("left", "right"))
            for row, start, stop in zip(found, begin, end, strict=True):
                row.update(self._known[1, start:stop].tolist())
        return found


def _keys_of_given(ids: Sequence[str | None]) -> np.ndarray:
    """Returns the keys of ids, 0 for None."""
    given = np.array([word is not None for word in ids], dtype=bool)
    return np.where(given, keys_of_ids([word or "" for word in ids]), 0)


def _keys_of_column(batch: Mapping[str, list[Any]], name: str) -> np.ndarray:
    size = len(next(iter(batch.values())))
    return _keys_of_given([text_id(value) for value in batch.get(name, [None] * size)])


def _prompts(model: SentenceTransformer, query: str | None, document: str | None) -> dict[str, str]:
    """The prompts of both sides, under the names that encode_query and encode_document look for."""
    known = model.prompts or {}
    default = known.get(model.default_prompt_name or "", None) or ""
    if query is None:
        query = known.get("query") or default
    if document is None:
        names = ("document", "passage", "corpus")
        document = next((known[name] for name in names if known.get(name)), default)
    return {"query": query, "document": document}


def _table(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    width = max(map(len, rows), default=0)
    table = [[*row, *[fill] * (width - len(row))] for row in rows]
    return torch.tensor(table, dtype=torch.int64).reshape(len(rows), width)


def _teacher(draws: Sequence[Draw]) -> Tensor:
    width = max((len(draw.negatives) for draw in draws), default=0)
    table = torch.full((len(draws), 1 + width), float("nan"))
    for row, draw in zip(table, draws, strict=True):
        for i, negative in enumerate(draw.negatives):
            if negative.teacher_score is not None:
                row[1 + i] = negative.teacher_score
            if negative.positive_teacher_score is not None:
                row[0] = negative.positive_teacher_score
    return table


def _counts(draws: Sequence[Draw]) -> dict[str, Any]:
    return {
        "instances": len(draws),
        "drawn": Counter(negative.source for draw in draws for negative in draw.negatives),
        "wanted": sum((draw.wanted for draw in draws), Counter()),
        "fallback": sum((draw.fallback for draw in draws), Counter()),
        "missing": sum(draw.missing for draw in draws),
        "without_negatives": sum(not draw.negatives for draw in draws),
    }
