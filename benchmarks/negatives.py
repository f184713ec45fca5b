"""The quality of negatives measured: hidden positives that come back, separability, verdicts.

python benchmarks/negatives.py hidden --source DATA/medquad
python benchmarks/negatives.py audit --source DATA/scifact --recordings scifact-train.jsonl
python benchmarks/negatives.py verdicts --dataset out/pydocs --verdicts recipes/compare/pydocs-verdicts.jsonl
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable

import numpy as np
from mining import DEPTH, ENCODER, KEEP, subset


def hidden(args: argparse.Namespace) -> None:
    """Hides a third of the positives of queries with several; counts those that come back as negatives."""
    from syneg.mining.arguments import MiningArguments
    from syneg.mining.mine import mine_pairs
    from syneg.sources import Pairs, load_source

    with tempfile.TemporaryDirectory() as folder:
        path = subset(args.source, args.subset, folder, several=True) if args.subset else args.source
        source = load_source(path)
    rng = np.random.default_rng(0)
    qrels = source.qrels[args.split]
    hidden_pairs: set[tuple[int, int]] = set()
    query_rows, positive_rows = [], []
    for query, docs in qrels.items():
        relevant = sorted(d for d, relevance in docs.items() if relevance > 0)
        if len(relevant) < 2:
            continue
        gone = set(rng.permutation(relevant)[: max(1, len(relevant) // 3)].tolist())
        row = int(source.query_ids.get_loc(query))
        for document in relevant:
            if document in gone:
                hidden_pairs.add((row, int(source.document_ids.get_loc(document))))
                docs.pop(document)
            else:
                query_rows.append(row)
                positive_rows.append(int(source.document_ids.get_loc(document)))
    pairs = Pairs(source, np.array(query_rows), np.array(positive_rows))
    print(f"{len(set(query_rows))} queries with several positives; {len(hidden_pairs)} positives hidden")
    print("miner   margin by   margin  kept  hidden among the kept (of all hidden)  negatives lost   short")
    for miner, by, margin in settings():
        rules = MiningArguments(
            miners=miner,
            encoder=ENCODER,
            mined_per_miner=KEEP,
            mining_depth=DEPTH,
            relative_margin={miner: margin} if margin is not None else {},
            margin_scores=by,
            mining_cache=args.cache,
            mining_device="cpu",
        )
        mined = mine_pairs(pairs, rules)
        report = mined.report.miners[miner]
        back = hidden_pairs.intersection(found(mined, pairs))
        rules.mined_per_miner = DEPTH
        everything = mine_pairs(pairs, rules)
        dropped = everything.report.miners[miner].dropped["relative_margin"]
        total = len(everything.document_rows) + dropped
        true_dropped = dropped - _hidden_dropped(everything, hidden_pairs, rules, pairs)
        print(
            f"{miner:7} {by:11} {'none' if margin is None else margin:>6} {report.kept:6} "
            f"{len(back):6} ({len(back) / len(hidden_pairs):6.1%})                     "
            f"{true_dropped / max(1, total):14.1%} {report.short_rows:7}",
            flush=True,
        )


def found(mined, pairs) -> list[tuple[int, int]]:
    """Returns the rows of query and document of every mined negative."""
    queries = np.repeat(pairs.query_rows, np.diff(mined.offsets))
    return list(zip(queries.tolist(), mined.document_rows.tolist(), strict=True))


def _hidden_dropped(everything, hidden_pairs, rules, pairs) -> int:
    """Returns how many of what the margin dropped were hidden positives, counted a pair."""
    from dataclasses import replace

    from syneg.mining.mine import mine_pairs

    if not rules.relative_margin:
        return 0
    without = mine_pairs(pairs, replace(rules, relative_margin={}))
    before, after = (sum(pair in hidden_pairs for pair in found(m, pairs)) for m in (without, everything))
    return before - after


def settings() -> Iterable[tuple[str, str, float | None]]:
    """Yields miner, whose scores the margin compares, and the margin."""
    for margin in (None, 0.02, 0.05, 0.1, 0.2):
        yield "dense", "own", margin
    yield "bm25", "own", None
    yield "bm25", "own", 0.05
    yield "bm25", "own", 0.2
    yield "bm25", "dense", 0.05
    yield "bm25", "dense", 0.1
    yield "random", "own", None


def run_audit(args: argparse.Namespace) -> None:
    """Audits recorded synthetic negatives against mined ones."""
    from syneg.encoders import load_encoder
    from syneg.gating.audit import audit
    from syneg.mining.arguments import MiningArguments
    from syneg.mining.mine import mine_pairs
    from syneg.rows import SYNTHETIC, make_negative, make_row
    from syneg.sources import load_source

    source = load_source(args.source)
    pairs = source.pairs("train")
    recorded: dict[tuple[str, str], list[str]] = {}
    with open(args.recordings, encoding="utf-8") as file:
        for record in map(json.loads, file):
            key = (str(record["query_id"]), str(record["positive_id"]))
            recorded.setdefault(key, []).append(record["text"])
    options = {"mined_per_miner": 1, "encoder": ENCODER, "mining_cache": args.cache, "mining_device": "cpu"}
    mined = mine_pairs(pairs, MiningArguments(miners=args.miners, **options))
    rows = []
    for pair, negatives in zip(pairs, mined, strict=True):
        texts = recorded.get((pair.query_id, pair.positive_id), [])
        if args.control:
            texts = [pair.positive]
        written = [make_negative(text, SYNTHETIC) for text in texts]
        rows.append(make_row(pair.query_id, pair.query, pair.positive_id, pair.positive, negatives + written))
    model = None if args.without_embeddings else load_encoder(ENCODER, device="cpu")
    encode = None if model is None else lambda texts: model.encode_document(texts, batch_size=8)
    print("\n".join(audit(rows, encode).lines()))


def count_verdicts(args: argparse.Namespace) -> None:
    """Counts a judge's verdicts on a data set's positives and negatives, those that a gate dropped apart."""
    from datasets import get_dataset_config_names, load_dataset

    from syneg.gating.judge import document_key
    from syneg.gating.verdicts import VERDICTS

    verdicts = {}
    with open(args.verdicts, encoding="utf-8") as file:
        for record in map(json.loads, file):
            verdicts[record["query_id"], record["doc_id"]] = record["verdict"]
    pairs: dict[str, set[tuple[str, str]]] = {}
    for row in load_dataset(args.dataset, split="train"):
        pairs.setdefault("positive", set()).add((row["query_id"], row["positive_id"]))
        for negative in row["negatives"]:
            pairs.setdefault(negative["source"], set()).add((row["query_id"], document_key(negative)))
    if "dropped" in get_dataset_config_names(args.dataset):
        for row in load_dataset(args.dataset, "dropped", split="train"):
            name = f"{row['negative']['source']}, dropped by {row['gate']}"
            pairs.setdefault(name, set()).add((row["query_id"], document_key(row["negative"])))
    print(f"{'':32}" + "".join(f"{verdict:>10}" for verdict in (*VERDICTS, "unjudged")))
    for name, found in sorted(pairs.items()):
        counts = Counter(verdicts.get(pair, "unjudged") for pair in found)
        print(f"{name:32}" + "".join(f"{counts[verdict]:10}" for verdict in (*VERDICTS, "unjudged")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["hidden", "audit", "verdicts"])
    parser.add_argument("--source", help="`hidden` and `audit`: a BEIR folder, as --source of syneg")
    parser.add_argument("--dataset", help="`verdicts`: a data set's folder")
    parser.add_argument("--verdicts", help="`verdicts`: a JSONL, as --judge_recordings of syneg")
    parser.add_argument("--cache", default=None)
    parser.add_argument("--split", default="train", help="of `hidden`")
    parser.add_argument("--subset", type=int, help="`hidden` on so many documents of the source")
    parser.add_argument("--recordings", help="`audit`: the synthetic negatives")
    parser.add_argument("--miners", default="bm25,dense", help="`audit`: of the negatives beside them")
    parser.add_argument("--without_embeddings", action="store_true", help="audit words and surface only")
    parser.add_argument("--control", action="store_true", help="audit positives in the synthetic ones' place")
    args = parser.parse_args()
    needed = {"hidden": ["source"], "audit": ["source", "recordings"], "verdicts": ["dataset", "verdicts"]}
    for name in needed[args.what]:
        if not getattr(args, name):
            parser.error(f"{args.what} needs --{name}")
    {"hidden": hidden, "audit": run_audit, "verdicts": count_verdicts}[args.what](args)


if __name__ == "__main__":
    main()
