"""Mining as a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from syneg.encoders import check_device, check_model, public_name
from syneg.errors import InputError
from syneg.mining.arguments import MiningArguments
from syneg.mining.bm25 import Terms
from syneg.mining.mine import MinedNegatives, iter_mined, mine_pairs
from syneg.mining.report import MiningReport
from syneg.resources import check_place
from syneg.rows import Negative
from syneg.sources import Pair, Pairs
from syneg.stages import Draft, SizedPairs, Stage


class Mining(Stage):
    """Adds each pair's mined negatives behind those that it has.

    Args:
        args: Which miners and rules.
        seed: Seed of the random miner and of sampling.
    """

    name = "mining"
    group = 512

    def __init__(self, args: MiningArguments, seed: int) -> None:
        self.args, self.seed = args, seed
        self._mined: MinedNegatives | None = None
        self._negatives: Iterator[list[Negative]] | None = None
        self._at: dict[tuple[str, str], int] = {}

    @property
    def mined(self) -> MinedNegatives:
        """What was mined."""
        assert self._mined is not None, "prepare comes first"
        return self._mined

    @property
    def has_encoder(self) -> bool:
        """Whether there will be a dense miner that can encode other texts too."""
        args = self.args
        return ("dense" in args.miners or args.margin_scores == "dense") and args.query_embeddings is None

    def check(self) -> None:
        """Checks the encoder, the device, the embeddings' files, and what BM25 needs.

        Raises:
            InputError: For what is not to be had.
        """
        args = self.args
        check_place(args.cache_folder, "mining_cache")
        if "bm25" in args.miners:
            Terms(args)
        for path in (args.query_embeddings, args.corpus_embeddings):
            if path is not None and not Path(path).is_file():
                raise InputError(f"{path}: no such file of embeddings.")
        if self.has_encoder:
            check_model(args.encoder)
            check_device(args.mining_device, "mining_device")

    def prepare(self, pairs: SizedPairs) -> None:
        """Mines.

        Raises:
            InputError: For what a miner cannot use, or where there are no pairs.
        """
        assert isinstance(pairs, Pairs), "mining needs the corpus"
        self._mined = mine_pairs(pairs, self.args, self.seed)
        self._negatives = iter_mined(self._mined)

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        """Adds the negatives of the next pairs."""
        assert self._negatives is not None, "prepare comes first"
        for draft in drafts:
            draft.row["negatives"] += next(self._negatives)
        return drafts

    def texts(self, pair: Pair) -> Sequence[str]:
        """Returns the texts of a pair's mined negatives, best first, for who starts from them."""
        mined = self.mined
        source = mined.pairs.source
        if not self._at:
            queries = source.query_ids[mined.pairs.query_rows]
            positives = source.document_ids[mined.pairs.positive_rows]
            self._at = {identity: i for i, identity in enumerate(zip(queries, positives, strict=True))}
        at = self._at[pair.query_id, pair.positive_id]
        rows = mined.document_rows[mined.offsets[at] : mined.offsets[at + 1]]
        return source.documents(rows) if len(rows) else []

    def card(self) -> dict[str, Any]:
        """Returns the encoder and the filters by scores."""
        args = self.args
        names = ("relative_margin", "absolute_margin", "min_score", "max_score")
        margins = {name: value for name in names if (value := getattr(args, name))}
        if args.rank_from > 1:
            margins["rank_from"] = args.rank_from
        encoder = public_name(args.encoder) if self.mined.dense is not None and self.has_encoder else None
        return {"encoder": encoder, "margins": margins}

    def report(self) -> MiningReport:
        """Returns what was kept and dropped, by miner and rule."""
        return self.mined.report

    def close(self) -> None:
        """Frees what was mined; the report stays."""
        self._negatives = None
