"""Arguments of the mining stage."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syneg.config import parse_mapping, split_commas
from syneg.errors import InputError, unknown
from syneg.mining.candidates import Miner
from syneg.resources import class_from_file, is_class_spec

MINERS = ("bm25", "dense", "random")
DEFAULT_RELATIVE_MARGIN = 0.05
CPU_BATCH_TOKENS, DEVICE_BATCH_TOKENS = 4096, 32_768
"""Tokens encoded at once on a CPU, whose cache holds what is small, and on an accelerator."""


def default_cache_folder() -> Path:
    """Returns the cache folder: ``$SYNEG_CACHE``, or ``syneg`` in the user's cache folder."""
    if "SYNEG_CACHE" in os.environ:
        return Path(os.environ["SYNEG_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "syneg"


@dataclass
class MiningArguments:
    """Which negatives are retrieved from the corpus, and which of them are kept.

    Margins and score bounds are mappings from a miner to a number; a bare number is for every miner
    with scores (bm25 and dense).

    Raises:
        InputError: For an unknown miner or a value out of its range.
    """

    miners: list[str] = field(
        default_factory=lambda: ["bm25", "dense"],
        metadata={
            "help": "Miners, in order: bm25, dense, random, or FILE.py:CLASS, one of your own. A document "
            "found by two counts for the first."
        },
    )
    encoder: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "The dense miner's model: a folder, a Hub id or package:NAME/FOLDER."},
    )
    mined_per_miner: int = field(default=8, metadata={"help": "Negatives kept for a pair from each miner."})
    mining_depth: int = field(
        default=100,
        metadata={
            "help": "Candidates retrieved for a query. Positives take up places too, up to half of them; "
            "where a query has more, its positives come on top."
        },
    )
    rank_from: int = field(
        default=1, metadata={"help": "Lowest rank that may be a negative; 11 skips the ten nearest."}
    )
    relative_margin: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "m in 'negative <= positive - |positive| * m' by miner. Where it is not given: "
            "dense=0.05 (TopK-PercPos 0.95), and bm25=0.05 where the dense miner's scores decide; "
            "'{}' for none."
        },
    )
    absolute_margin: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "m in 'negative <= positive - m' by miner, as in dense=0.05."}
    )
    margin_scores: str | None = field(
        default=None,
        metadata={
            "help": "Whose scores margins compare: the miner's own, or the dense miner's for all (the "
            "default where dense is among the miners).",
            "choices": ["own", "dense"],
        },
    )
    min_score: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Lowest score of a negative by miner, as in dense=0.2."}
    )
    max_score: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Highest score of a negative by miner, as in dense=0.9."}
    )
    mined_selection: str = field(
        default="top",
        metadata={"help": "Keep the top candidates, or a random sample.", "choices": ["top", "sampled"]},
    )
    sample_from: int = field(
        default=0,
        metadata={
            "help": "With 'sampled': sample among this many of the best candidates; 0 for all of them."
        },
    )
    short_rows: str = field(
        default="keep",
        metadata={
            "help": "A pair with too few candidates keeps what it has, or is filled with random documents "
            "(marked as such). Both are counted.",
            "choices": ["keep", "random"],
        },
    )
    bm25_language: str = field(
        default="english", metadata={"help": "Language of the stemmer and the stop words; none for neither."}
    )
    bm25_tokenizer: str = field(
        default="words",
        metadata={
            "help": "What BM25 takes for terms: words (their stems; pairs of characters in scripts without "
            "blanks and in Korean), or a Hugging Face tokenizer's tokens: a folder, a Hub id or "
            "package:NAME/FOLDER. --bm25_language is for words."
        },
    )
    query_prompt: str | None = field(
        default=None, metadata={"help": "Text put before every query; the model's own where not given."}
    )
    document_prompt: str | None = field(
        default=None, metadata={"help": "Text put before every document; the model's own where not given."}
    )
    encode_batch_size: int | None = field(
        default=None,
        metadata={
            "help": f"Texts encoded at once; by default about {CPU_BATCH_TOKENS:,} tokens on a CPU, "
            f"{DEVICE_BATCH_TOKENS:,} elsewhere."
        },
    )
    encode_precision: str = field(
        default="auto",
        metadata={
            "help": "auto is bf16 where the device computes it fast, fp32 elsewhere.",
            "choices": ["auto", "fp32", "bf16", "fp16"],
        },
    )
    encode_max_length: int | None = field(
        default=None, metadata={"help": "Longest text in tokens; the model's own where not given."}
    )
    mining_device: str | None = field(
        default=None,
        metadata={"help": "cpu, cuda, cuda:1 ...; the first accelerator there is where not given."},
    )
    query_embeddings: str | None = field(
        default=None,
        metadata={"help": "A .npy file with one row a query, in the queries' order; needs both."},
    )
    corpus_embeddings: str | None = field(
        default=None, metadata={"help": "A .npy file with one row a document, in the corpus's order."}
    )
    search_index: str = field(
        default="flat",
        metadata={
            "help": "flat is exact; ivf and ivfpq are approximate, for corpora of many millions.",
            "choices": ["flat", "ivf", "ivfpq"],
        },
    )
    search_probes: int = field(
        default=32, metadata={"help": "Cells that ivf and ivfpq look into for a query."}
    )
    search_block: int = field(
        default=32768, metadata={"help": "Documents searched at once; memory grows with it."}
    )
    mining_cache: str | None = field(
        default=None,
        metadata={
            "help": "Folder of embeddings and indexes; $SYNEG_CACHE or ~/.cache/syneg where not given."
        },
    )

    def __post_init__(self) -> None:
        self.miners = split_commas(self.miners)
        for name in self.miners:
            if name not in MINERS and not is_class_spec(name):
                raise InputError(
                    f"{unknown('miner', name, MINERS)} One of your own is FILE.py:CLASS, a "
                    "syneg.mining.candidates.Miner with name and search(query_rows, depth)."
                )
        names = [own_miner(name).name if is_class_spec(name) else name for name in self.miners]
        if not self.miners or len(set(names)) < len(names):
            raise InputError(f"--miners {','.join(self.miners)}: name each miner once; there are {MINERS}.")
        if self.margin_scores is None:
            self.margin_scores = "dense" if "dense" in self.miners else "own"
        if self.relative_margin is None:
            # BM25's own scores let most unjudged positives through, or cost many true negatives.
            miners = ["dense"] if self.margin_scores == "own" else ["dense", "bm25"]
            self.relative_margin = dict.fromkeys(miners, DEFAULT_RELATIVE_MARGIN)
        for key in ("relative_margin", "absolute_margin", "min_score", "max_score"):
            setattr(self, key, _by_miner(getattr(self, key), key, {*MINERS, *names}))
        if not self.bm25_tokenizer:
            raise InputError(
                "--bm25_tokenizer is empty: give words, a folder, a Hub id or package:NAME/FOLDER."
            )
        for key, lowest in _LOWEST.items():
            if getattr(self, key) is not None and getattr(self, key) < lowest:
                raise InputError(f"--{key} {getattr(self, key)}: must be at least {lowest}.")
        if self.rank_from > self.mining_depth:
            raise InputError(
                f"--rank_from {self.rank_from} is beyond --mining_depth {self.mining_depth}: nothing is left."
            )
        if (self.query_embeddings is None) != (self.corpus_embeddings is None):
            raise InputError("--query_embeddings and --corpus_embeddings go together; give both or none.")

    @property
    def cache_folder(self) -> Path:
        """Where embeddings and indexes are kept."""
        return Path(self.mining_cache) if self.mining_cache else default_cache_folder()


_LOWEST = {
    "mined_per_miner": 1,
    "mining_depth": 1,
    "rank_from": 1,
    "sample_from": 0,
    "encode_batch_size": 1,
    "search_probes": 1,
    "search_block": 1,
}


def own_miner(spec: str) -> type[Miner]:
    """Returns the miner of the user's own that ``FILE.py:CLASS`` stands for.

    Raises:
        InputError: Where it cannot be used; says what it would have to define.
    """
    return class_from_file(spec, Miner, "miners", methods=("search",))  # type: ignore[type-abstract]


def _by_miner(value: Any, key: str, known: Collection[str]) -> dict[str, float]:
    """Returns a number by miner; a bare number is for bm25 and dense."""
    try:
        bare = float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        bare = None
    if bare is not None:
        return {"bm25": bare, "dense": bare}
    numbers: dict[str, float] = {}
    for miner, number in parse_mapping(value, key).items():
        if miner not in known:
            raise unknown(f"miner in --{key}", miner, known)
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise InputError(f"--{key}: {miner}={number!r} is not a number.")
        numbers[miner] = float(number)
    return numbers
