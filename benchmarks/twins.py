"""Rows whose positive and synthetic negative are of one hand: style tells nothing of relevance.

python benchmarks/twins.py --rows out/tldr --twins RECORDINGS/tldr-twins.jsonl --output out/tldr-twins

A line of --twins has `query_id`, `positive_id` and two rewrites of the positive: `satisfies`, which serves
the query as it does, and `misses`, which does not. Of half of the rows the positive gives way to its rewrite;
the other rewrite becomes the synthetic negative beside those that were mined.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from datasets import load_dataset

from syneg.errors import InputError
from syneg.rows import FEATURES, SYNTHETIC, make_negative


def twins_of(path: str) -> dict[tuple[str, str], dict[str, str]]:
    """Returns (query id, positive id) -> its two rewrites."""
    with open(path, encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return {(one["query_id"], one["positive_id"]): one for one in records}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--twins", required=True)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    twins = twins_of(args.twins)

    def rewritten(row: dict[str, Any]) -> dict[str, Any]:
        pair = twins.get((row["query_id"], row["positive_id"]))
        if pair is None:
            raise InputError(f"{args.twins}: no line for query {row['query_id']!r}.")
        mined = [one for one in row["negatives"] if one["source"] != SYNTHETIC]
        row["negatives"] = [make_negative(pair["misses"], SYNTHETIC), *mined]
        if hashlib.sha256(row["query_id"].encode()).digest()[0] % 2:
            row["positive"] = pair["satisfies"]
        return row

    rows = load_dataset(args.rows, split="train").map(rewritten, features=FEATURES)
    output = Path(args.output)
    output.mkdir(parents=True)
    rows.to_parquet(str(output / "train-00000-of-00001.parquet"))
    print(f"{output}: {len(rows)} rows")


if __name__ == "__main__":
    main()
