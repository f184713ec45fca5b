"""The BM25 miner, on bm25s: an index in memory-mapped files, made once for a corpus."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from syneg.errors import InputError
from syneg.mining.arguments import MiningArguments
from syneg.mining.cache import cached_folder, content_key, document_blocks, joint_key
from syneg.mining.candidates import MISSING, Candidates, order
from syneg.resources import resource_path
from syneg.sources import Source
from syneg.text import WORDS_VERSION, search_form, words

_BLOCK = 4096
"""Queries searched at once: bounds memory and moves the progress bar."""


WORDS = "words"
"""The `bm25_tokenizer` that takes stems of `syneg.text.words`, without stop words."""


class Terms:
    """What BM25 takes for the terms of a text: stems of words, or a Hugging Face tokenizer's tokens.

    Args:
        args: Tokenizer and language.

    Raises:
        InputError: For a language without a stemmer, or a tokenizer that cannot be loaded.
    """

    def __init__(self, args: MiningArguments) -> None:
        self._tokenizer: Any = None
        if args.bm25_tokenizer == WORDS:
            self._stems = _Stems(*_language(args.bm25_language))
            self.key = joint_key(WORDS, WORDS_VERSION, args.bm25_language)
        else:
            self._tokenizer = _load_tokenizer(args.bm25_tokenizer)
            self.key = joint_key("tokens", WORDS_VERSION, self._tokenizer.backend_tokenizer.to_str())

    def __call__(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """Yields each text's terms, in order."""
        if self._tokenizer is None:
            for text in texts:
                yield [stem for stem in map(self._stems.__getitem__, words(text)) if stem]
        elif len(texts):
            # Tokenizers that mark where a word begins do so behind a blank.
            found = self._tokenizer(
                [f" {search_form(text)}" for text in texts], add_special_tokens=False, verbose=False
            )
            yield from map(self._tokenizer.convert_ids_to_tokens, found["input_ids"])


class _Stems(dict[str, str]):
    """Stem by word, "" for a stop word; each is made once."""

    def __init__(self, stop_words: Sequence[str], stem: Callable[[str], str]) -> None:
        super().__init__(dict.fromkeys(stop_words, ""))
        self._stem = stem

    def __missing__(self, word: str) -> str:
        stem = self[word] = self._stem(word)
        return stem


class BM25Miner:
    """Ranks by BM25 (Lucene's variant, k1 1.5, b 0.75).

    A document that shares no term with the query is no candidate.

    Args:
        source: The source.
        args: Tokenizer, language and cache folder.
        terms: `Terms` of `args`, where they are there already.

    Raises:
        InputError: For a language without a stemmer, or a tokenizer that cannot be loaded.
    """

    name = "bm25"
    ranked = True

    def __init__(self, source: Source, args: MiningArguments, terms: Terms | None = None) -> None:
        self.source = source
        self._terms = terms or Terms(args)
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
        return [self._index.get_tokens_ids(terms) for terms in self._terms(texts)]

    def _load(self, args: MiningArguments) -> Any:
        import bm25s

        key = joint_key("bm25", bm25s.__version__, self._terms.key, content_key(document_blocks(self.source)))
        with cached_folder(args.cache_folder / "bm25" / key) as (folder, ready):
            if not ready:
                index = bm25s.BM25()
                # bm25s does not take a vocabulary of no terms.
                vocabulary: dict[str, int] = {"": 0}
                ids = [
                    [vocabulary.setdefault(term, len(vocabulary)) for term in terms]
                    for terms in self._document_terms()
                ]
                with np.errstate(invalid="ignore"):  # Documents of no terms have a mean length of 0.
                    index.index((ids, vocabulary), show_progress=False)
                index.save(folder)
        return bm25s.BM25.load(args.cache_folder / "bm25" / key, mmap=True)

    def _document_terms(self) -> Iterator[list[str]]:
        with tqdm(total=len(self.source.corpus), desc="BM25 index", unit="document") as bar:
            for block in document_blocks(self.source):
                yield from self._terms(block)
                bar.update(len(block))

    def _choose_backend(self) -> int:
        """Lets bm25s use numba where that pays, and returns the number of threads."""
        if self._large and importlib.util.find_spec("numba"):
            import numba

            self._index.backend = "numba"
            return numba.get_num_threads()
        self._index.backend = "numpy"
        return 0


def _load_tokenizer(spec: str) -> Any:
    """Loads a Hugging Face tokenizer."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(resource_path(spec))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"--bm25_tokenizer {spec!r} cannot be loaded: {reason} Give words, a folder, a Hub id or "
            "package:NAME/FOLDER."
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"--bm25_tokenizer {spec!r}: it is not one of the library tokenizers (it has no tokenizer.json); "
            "give one that is, or words."
        )
    return tokenizer


def _language(language: str) -> tuple[Sequence[str], Callable[[str], str]]:
    """Returns a language's stop words and its stemmer."""
    from bm25s import stopwords

    if language == "none":
        return (), str
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
    found = getattr(stopwords, f"STOPWORDS_{name}", None)
    return found or (), stemmer.stemWord
