"""The random miner: documents drawn from the corpus, whatever the query."""

from __future__ import annotations

import numpy as np

from syneg.mining.candidates import MISSING, Candidates, mix
from syneg.sources import Source
from syneg.text import text_keys


class RandomMiner:
    """Draws documents uniformly; the draw depends on the seed and the query's id only.

    Args:
        source: The source.
        seed: The seed.
    """

    name = "random"
    ranked = False

    def __init__(self, source: Source, seed: int) -> None:
        self.source = source
        self.seed = seed

    def search(self, query_rows: np.ndarray, depth: int) -> Candidates:
        """Returns documents in random order, none twice; all of them where `depth` reaches that far."""
        total = len(self.source.corpus)
        keys = text_keys(self.source.query_ids[query_rows])
        if depth * 4 >= total:
            # Drawing with replacement would often repeat itself: shuffle instead.
            draws = mix(self.seed, keys[:, None], np.arange(total)[None])
            rows = np.argsort(draws, axis=1, kind="stable")[:, :depth]
        else:
            draws = mix(self.seed, keys[:, None], np.arange(depth)[None])
            rows = (draws % np.uint64(total)).astype(np.int64)
            by = np.argsort(rows, axis=1, kind="stable")
            ordered = np.take_along_axis(rows, by, axis=1)
            again = np.zeros(rows.shape, dtype=bool)
            np.put_along_axis(again, by[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
            rows[again] = MISSING
        return Candidates(rows, np.full(rows.shape, np.nan, dtype=np.float32))

    def score(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """Returns NaN for each: nothing is scored."""
        return np.full(len(query_rows), np.nan, dtype=np.float32)
