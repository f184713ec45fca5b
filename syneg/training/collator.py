"""`SyNegCollator`: rows in, one batch for `ContrastiveTrainer` out.

It draws each row's negatives, finds equal texts, tokenises every text once and leaves the padding to
the trainer. It runs in the data loader's workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from syneg.errors import InputError
from syneg.training.examples import Example, read_example
from syneg.training.instances import Instances, id_key, key_of, text_key
from syneg.training.mixing import Draw, Mixture
from syneg.training.texts import Texts, tokenize

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SIDES = ("query", "document")
EMPTY_ROWS = ("error", "in_batch")


class SyNegCollator:
    """Draws negatives and tokenises.

    Rows may be those of a hard-negative data set, triplets (anchor, positive, negative), n-tuples
    (negative_1 ... negative_k), or hold a list ``negative: list[str]``.

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
        if empty_rows not in EMPTY_ROWS:
            raise InputError(f"empty_rows={empty_rows!r}: write one of {', '.join(EMPTY_ROWS)}.")
        self.model = model
        self.mixture = Mixture.everything() if mixture is None else Mixture.parse(mixture)
        self.seed = seed
        self.num_epochs = num_epochs
        self.empty_rows = empty_rows
        self.prompts = _prompts(model, query_prompt, document_prompt)
        self.positives: dict[str, set[int]] = {}
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
            rows: A data set with columns query_id, positive_id and positive; others are left alone.
        """
        columns = ("query_id", "positive_id", "positive")
        if not set(columns) <= set(rows.column_names or []):
            return
        batches = rows.select_columns(list(columns)).with_format(None).iter(batch_size=1000)
        for batch in batches:
            for query_id, positive_id, positive in zip(*(batch[name] for name in columns), strict=True):
                if query_id is not None:
                    keys = self.positives.setdefault(query_id, set())
                    keys |= {text_key(positive)} | (
                        {id_key(positive_id)} if positive_id is not None else set()
                    )

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns a batch.

        Args:
            rows: The rows; may be empty, where a process has no share of the last batch.

        Returns:
            ``instances`` and ``texts`` in the forms of `Instances` and `Texts` (as mappings of tensors,
            which the data loader can pin), and for the record ``row_ids``, ``sources`` (name by key) and
            ``counts``.

        Raises:
            InputError: For a row without query or positive, or without negatives where that is an error.
        """
        examples = [read_example(row) for row in rows]
        draws = [self._draw(example) for example in examples]
        positions: dict[tuple[str, str], int] = {}
        doc_ids: dict[int, str] = {}

        def position(side: str, text: str, doc_id: str | None = None) -> int:
            place = positions.setdefault((self.prompts[side], text), len(positions))
            if doc_id is not None:
                doc_ids.setdefault(place, doc_id)
            return place

        query = [position("query", example.query) for example in examples]
        positive = [position("document", e.positive, e.positive_id) for e in examples]
        negatives = [[position("document", n.text, n.doc_id) for n in draw.negatives] for draw in draws]
        if not positions:
            # A process must take part in every exchange, so it embeds something.
            position("query", "")
        instances = Instances(
            query=torch.tensor(query, dtype=torch.int64),
            positive=torch.tensor(positive, dtype=torch.int64),
            negatives=_table(negatives, -1),
            source=_table([[key_of(n.source) for n in draw.negatives] for draw in draws], 0),
            known=_table([self._known(example) for example in examples], 0),
            query_key=torch.tensor([text_key(e.query) for e in examples], dtype=torch.int64),
            text_key=torch.tensor([text_key(text) for _, text in positions], dtype=torch.int64),
            doc_key=torch.tensor(
                [id_key(doc_ids[i]) if i in doc_ids else 0 for i in range(len(positions))], dtype=torch.int64
            ),
            teacher=_teacher(draws),
        )
        texts = self._tokenize(list(positions))
        sources = {key_of(n.source): n.source for draw in draws for n in draw.negatives}
        return {
            "instances": vars(instances),
            "texts": vars(texts),
            "row_ids": [example.identity for example in examples],
            "sources": sources,
            "counts": _counts(draws),
        }

    def _draw(self, example: Example) -> Draw:
        known = self.positives.get(example.query_id or "", set())
        # Judged by key as well as by text: an id names a positive whose text may differ.
        candidates = [
            candidate
            for candidate in example.candidates
            if (candidate.doc_id is None or candidate.doc_id != example.positive_id)
            and not (known and _is_known(candidate.text, candidate.doc_id, known))
        ]
        draw = self.mixture.draw(
            candidates,
            seed=self.seed,
            epoch=self.epoch,
            identity=example.identity,
            num_epochs=self.num_epochs,
            forbidden={example.query, example.positive},
        )
        if self.mixture.asks_for_negatives and not draw.negatives and self.empty_rows == "error":
            raise InputError(
                f"row {example.identity!r} has no negative, but the mixture '{self.mixture}' asks for some. "
                "Leave such rows out, or train them on in-batch negatives alone with --empty_rows in_batch."
            )
        return draw

    def _known(self, example: Example) -> list[int]:
        keys = {text_key(example.positive), text_key(example.query)}
        if example.positive_id is not None:
            keys.add(id_key(example.positive_id))
        return sorted(keys | self.positives.get(example.query_id or "", set()))

    def _tokenize(self, texts: list[tuple[str, str]]) -> Texts:
        return tokenize(self.model, texts)


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


def _is_known(text: str, doc_id: str | None, known: set[int]) -> bool:
    return text_key(text) in known or (doc_id is not None and id_key(doc_id) in known)


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
