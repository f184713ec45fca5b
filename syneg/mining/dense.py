"""The dense miner: any SentenceTransformer, or embeddings that the user brings."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np

from syneg.encoders import load_encoder
from syneg.errors import InputError
from syneg.mining.arguments import MiningArguments
from syneg.mining.cache import content_key, document_blocks, joint_key, model_key
from syneg.mining.candidates import MISSING, Candidates, Processes
from syneg.mining.embeddings import (
    SHARD_ROWS,
    Embeddings,
    choose_device,
    choose_dtype,
    encode_shards,
    encode_texts,
    open_shards,
    read_embeddings,
)
from syneg.mining.search import rescore, search_flat, search_index
from syneg.sources import Source


class DenseMiner:
    """Ranks by the similarity of embeddings: cosine, or the inner product where the model says "dot".

    Embeddings are cached by the texts, the model's files, prompts, length and precision.

    Args:
        source: The source.
        args: Model, precision, search and cache.
        query_rows: The queries that will be asked for; others cannot be searched or scored.
        processes: Those that share the encoding.

    Raises:
        InputError: For a model that cannot be loaded, whose similarity is neither cosine nor dot, or
            for embeddings that do not fit the source.
    """

    name = "dense"
    ranked = True

    def __init__(
        self,
        source: Source,
        args: MiningArguments,
        query_rows: np.ndarray,
        processes: Processes | None = None,
    ) -> None:
        self.source = source
        self.args = args
        self.processes = processes or Processes()
        self.device = choose_device(args.mining_device)
        self._query_rows = np.unique(query_rows)
        self._corpus_key: str | None = None
        if args.query_embeddings is not None and args.corpus_embeddings is not None:
            # The user's own embeddings are compared by cosine, as nearly all models' are.
            documents = len(source.corpus)
            self.corpus = read_embeddings(args.corpus_embeddings, documents, "documents", normalize=True)
            queries = read_embeddings(args.query_embeddings, len(source.queries), "queries", normalize=True)
            if queries.dimension != self.corpus.dimension:
                raise InputError(
                    f"{args.query_embeddings}: {queries.dimension} numbers an embedding, but "
                    f"{self.corpus.dimension} in {args.corpus_embeddings}; both must come from one model."
                )
            self._queries = queries.take(self._query_rows)
        else:
            self.corpus = self._encoded("document")
            self._queries = self._encoded("query").take(np.arange(len(self._query_rows)))
        # What was loaded to encode is not needed to search.
        self.rest()

    def search(self, query_rows: np.ndarray, depth: int) -> Candidates:
        """Returns the nearest documents; see `candidates.Miner`."""
        args = self.args
        queries = self._queries[self._at(query_rows)]
        if args.search_index == "flat":
            return search_flat(queries, self.corpus, depth, args.search_block, self.device)
        key = joint_key("index", args.search_index, self._corpus_key or self._own_key())
        folder = args.cache_folder / "index" / key
        return search_index(queries, self.corpus, depth, args.search_index, args.search_probes, folder)

    def score(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """Returns the similarity of each query with the document beside it, shape (n,)."""
        scores = np.empty(len(query_rows), dtype=np.float32)
        at = self._at(query_rows)
        for start in range(0, len(at), 8192):
            here = slice(start, start + 8192)
            documents = self.corpus.take(document_rows[here])
            scores[here] = np.einsum("nd,nd->n", self._queries[at[here]], documents)
        return scores

    def rescore(self, query_rows: np.ndarray, candidates: Candidates) -> np.ndarray:
        """Returns the similarities of another miner's candidates, shape (queries, depth)."""
        scores = np.full(candidates.rows.shape, -np.inf, dtype=np.float32)
        at = self._at(query_rows)
        step = max(1, 65536 // max(1, candidates.rows.shape[1]))
        for start in range(0, len(at), step):
            here = slice(start, start + step)
            scores[here] = rescore(self._queries[at[here]], self.corpus, candidates.rows[here])
        return np.where(candidates.rows == MISSING, -np.inf, scores)

    def query_embeddings(self, query_rows: np.ndarray) -> np.ndarray:
        """Returns the embeddings of the queries at these rows, float32, shape (n, dimension)."""
        return self._queries[self._at(query_rows)]

    def encode_documents(self, texts: list[str]) -> np.ndarray:
        """Returns the embeddings of texts as those of the corpus are, float32, shape (n, dimension)."""
        if not texts:
            return np.empty((0, self.corpus.dimension), dtype=np.float32)
        args = self.args
        found = encode_texts(self._model, texts, "document", args.document_prompt, args.encode_batch_size)
        return Embeddings([found], self.corpus.normalize).take(np.arange(len(texts)))

    def rest(self) -> None:
        """Frees the model; it is loaded again where it is needed."""
        self.__dict__.pop("_model", None)

    def _at(self, query_rows: np.ndarray) -> np.ndarray:
        at = np.searchsorted(self._query_rows, query_rows)
        assert np.array_equal(self._query_rows[at], query_rows), "a query that was not announced"
        return at

    @cached_property
    def _model(self) -> Any:
        args = self.args
        model = load_encoder(args.encoder, max_length=args.encode_max_length, device=self.device)
        if model.similarity_fn_name not in (None, "cosine", "dot"):
            raise InputError(
                f"model {args.encoder!r}: its similarity is {model.similarity_fn_name}; "
                "mining needs cosine or dot."
            )
        return model.to(choose_dtype(args.encode_precision, self.device)).eval()

    def _encoded(self, side: str) -> Embeddings:
        """Returns the embeddings of the corpus or of the queries, made now or found in the cache."""
        args = self.args
        if side == "document":
            total, what, prompt = len(self.source.corpus), "documents", args.document_prompt
            content = content_key(document_blocks(self.source))
            read: Any = self.source.documents
        else:
            total, what, prompt = len(self._query_rows), "queries", args.query_prompt
            content = content_key([self._query_texts(range(total))])
            read = self._query_texts
        identity = model_key(args.encoder)
        if identity is None:
            # It comes from the Hub now, and has a commit then.
            self._model  # noqa: B018
            identity = model_key(args.encoder) or args.encoder
        dtype = str(choose_dtype(args.encode_precision, self.device))
        layout = SHARD_ROWS
        key = joint_key("embeddings", layout, identity, content, side, prompt, args.encode_max_length, dtype)
        folder = args.cache_folder / "embeddings" / key
        encode_shards(
            folder,
            total,
            read,
            lambda texts: encode_texts(self._model, texts, side, prompt, args.encode_batch_size),
            what,
            self.processes.rank,
            self.processes.world,
        )
        self.processes.wait()
        if side == "document":
            self._corpus_key = key
        return open_shards(folder, total, self._normalizes(folder))

    def _normalizes(self, folder: Any) -> bool:
        """Returns whether similarity is cosine, from the model or from what it left in the cache."""
        note = folder / "similarity.txt"
        if "_model" in self.__dict__ or not note.is_file():
            similarity = self._model.similarity_fn_name or "cosine"
            # Several processes may do this; each writes the same, whole.
            partial = folder / f"similarity.{os.getpid()}.partial"
            partial.write_text(similarity)
            partial.replace(note)
            return similarity == "cosine"
        return note.read_text() == "cosine"

    def _query_texts(self, positions: range) -> list[str]:
        rows = self._query_rows[positions.start : positions.stop]
        return self.source.queries.select(rows.tolist())["text"][:]

    def _own_key(self) -> str:
        """Returns a key of the user's own embeddings, by content."""
        import hashlib

        digest = hashlib.blake2b(digest_size=16)
        for part in self.corpus.parts:
            for at in range(0, len(part), 65536):
                digest.update(np.ascontiguousarray(part[at : at + 65536]).tobytes())
        return digest.hexdigest()
