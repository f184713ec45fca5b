"""The BM25 miner, on bm25s: an index in memory-mapped files, made once for a corpus."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from syneg.errors import InputError
from syneg.mining.arguments import MiningArguments
from syneg.mining.cache import cached_folder
from syneg.mining.candidates import MISSING, Candidates, order
from syneg.mining.keys import content_key, document_blocks, joint_key
from syneg.sources import Source

_BLOCK = 4096
"""Queries searched at once: bounds memory and moves the progress bar."""


class BM25Miner:
    """Ranks by BM25 (Lucene's variant, k1 1.5, b 0.75), over stems without stop words.

    A document that shares no term with the query is no candidate.

    Args:
        source: The source.
        args: Language and cache folder.

    Raises:
        InputError: For a language without a stemmer.
    """

    name = "bm25"
    ranked = True

    def __init__(self, source: Source, args: MiningArguments) -> None:
        self.source = source
        self._stop_words, self._stemmer = _language(args.bm25_language)
        self._large = False
        self._index = self._load(args)

    def search(self, query_rows: np.ndarray, depth: int) -> Candidates:
        """Returns the best documents by BM25; see `candidates.Miner`."""
        depth = min(depth, len(self.source.corpus))
        # numba takes seconds to compile, which is what numpy takes for about this much work.
        self._large = len(query_rows) * len(self.source.corpus) > 150_000_000
        parts = []
        with tqdm(total=len(query_rows), desc="BM25 search", unit="query") as bar:
            for start in range(0, len(query_rows), _BLOCK):
                block = query_rows[start : start + _BLOCK]
                parts.append(self._search_block(block, depth))
                bar.update(len(block))
        return Candidates(
            *(np.concatenate(x) for x in zip(*((p.rows, p.scores) for p in parts), strict=True))
        )

    def score(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """Returns the BM25 score of each query with the document beside it, shape (n,)."""
        data, indices, indptr = (self._index.scores[k] for k in ("data", "indices", "indptr"))
        unique, inverse = np.unique(query_rows, return_inverse=True)
        ids = self._token_ids(unique)
        scores = np.zeros(len(query_rows), dtype=np.float32)
        for i, (query, document) in enumerate(zip(inverse, document_rows, strict=True)):
            for token in ids[query]:
                postings = indices[indptr[token] : indptr[token + 1]]
                at = int(np.searchsorted(postings, document))
                if at < len(postings) and postings[at] == document:
                    scores[i] += data[indptr[token] + at]
        return scores

    def _search_block(self, query_rows: np.ndarray, depth: int) -> Candidates:
        ids = self._token_ids(query_rows)
        rows = np.full((len(query_rows), depth), MISSING, dtype=np.int64)
        scores = np.zeros((len(query_rows), depth), dtype=np.float32)
        # bm25s does not take a query without tokens.
        some = [i for i, tokens in enumerate(ids) if len(tokens)]
        if some:
            found, found_scores = self._index.retrieve(
                [ids[i] for i in some], k=depth, show_progress=False, n_threads=self._choose_backend()
            )
            rows[some], scores[some] = found, found_scores
        rows[scores <= 0] = MISSING
        return order(rows, scores)

    def _token_ids(self, query_rows: np.ndarray) -> list[list[int]]:
        texts = self.source.queries.select(query_rows.tolist())["text"][:]
        return [self._index.get_tokens_ids(tokens) for tokens in self._tokenize(texts, return_ids=False)]

    def _tokenize(self, texts: Any, **options: Any) -> Any:
        import bm25s

        return bm25s.tokenize(
            texts, stopwords=self._stop_words, stemmer=self._stemmer, show_progress=False, **options
        )

    def _load(self, args: MiningArguments) -> Any:
        import bm25s

        key = joint_key(
            "bm25", bm25s.__version__, args.bm25_language, content_key(document_blocks(self.source))
        )
        with cached_folder(args.cache_folder / "bm25" / key) as (folder, ready):
            if not ready:
                index = bm25s.BM25()
                index.index(self._tokenize(self._texts()), show_progress=False)
                index.save(folder)
        return bm25s.BM25.load(args.cache_folder / "bm25" / key, mmap=True)

    def _choose_backend(self) -> int:
        """Lets bm25s use numba where that pays, and returns the number of threads."""
        if self._large and importlib.util.find_spec("numba"):
            import numba

            self._index.backend = "numba"
            return numba.get_num_threads()
        self._index.backend = "numpy"
        return 0

    def _texts(self) -> Iterator[str]:
        with tqdm(total=len(self.source.corpus), desc="BM25 index", unit="document") as bar:
            for block in document_blocks(self.source):
                yield from block
                bar.update(len(block))


def _language(language: str) -> tuple[Any, Any]:
    """Returns stop words and stemmer for bm25s."""
    from bm25s import stopwords

    if language == "none":
        return [], None
    try:
        import Stemmer

        stemmer = Stemmer.Stemmer(language)
    except ImportError:
        raise InputError(
            "BM25 needs PyStemmer for its stems; install it with pip, or give --bm25_language none."
        ) from None
    except KeyError:
        known = ", ".join(Stemmer.algorithms())
        raise InputError(f"--bm25_language {language!r}: no stemmer. Known: {known}, none.") from None
    name = "EN" if language == "english" else language.upper()
    words = getattr(stopwords, f"STOPWORDS_{name}", None)
    return list(words or []), stemmer
