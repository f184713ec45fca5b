"""Peak memory of the builder on N replayed pairs with 20 negatives each: 19 random ones and a recorded one.

    python benchmarks/builder_memory.py --pairs 20000 200000

Each size is built by `syneg build` in a process of its own. "Own" is the peak of its anonymous memory,
sampled (Linux only); the resident set also counts the pages of mapped Arrow files, which the kernel takes
back at need.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

WORDS = [f"word{i:04d}" for i in range(5000)]


def make_source(folder: Path, pairs: int) -> Path:
    """Writes a BEIR folder of `pairs` queries, as many documents of 60 words, and the recordings."""
    draw = random.Random(0)
    (folder / "qrels").mkdir(parents=True)
    with (
        open(folder / "corpus.jsonl", "w") as corpus,
        open(folder / "queries.jsonl", "w") as queries,
        open(folder / "qrels" / "train.tsv", "w") as qrels,
        open(folder / "recordings.jsonl", "w") as recordings,
    ):
        qrels.write("query-id\tcorpus-id\tscore\n")
        for i in range(pairs):
            text, other = (" ".join(draw.choices(WORDS, k=60)) for _ in range(2))
            query = " ".join(draw.choices(WORDS, k=8))
            corpus.write(json.dumps({"_id": f"d{i}", "title": "", "text": text}) + "\n")
            queries.write(json.dumps({"_id": f"q{i}", "text": query}) + "\n")
            qrels.write(f"q{i}\td{i}\t1\n")
            record = {"query_id": f"q{i}", "positive_id": f"d{i}", "reasoning": "because", "text": other}
            recordings.write(json.dumps(record) + "\n")
    return folder


def build(folder: Path) -> None:
    """Builds the data set in this process and prints its peak."""
    from syneg.cli import main

    own = [0.0]
    threading.Thread(target=watch, args=(own,), daemon=True).start()
    code = main(
        [
            "build",
            *("--name", "memory", "--source", str(folder), "--miners", "random", "--mined_per_miner", "19"),
            *("--engine", "recorded", "--recordings", str(folder / "recordings.jsonl")),
            *("--output", str(folder / "out")),
        ]
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"PEAK {code} {own[0]:.0f} {peak:.0f}")


def watch(own: list[float]) -> None:
    """Keeps the most anonymous memory of this process that was seen, in MB."""
    while True:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
        own[0] = max(own[0], float(line.split()[1]) / 1024)
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder is not None:
        build(args.folder)
        return
    print("|   pairs | folder, MB | peak own, MB | peak RSS, MB | seconds |")
    print("| ------: | ---------: | -----------: | -----------: | ------: |")
    for pairs in args.pairs:
        with tempfile.TemporaryDirectory() as temporary:
            folder = make_source(Path(temporary) / "source", pairs)
            begin = time.perf_counter()
            environment = os.environ | {"HF_DATASETS_CACHE": temporary + "/cache", "HF_HUB_OFFLINE": "1"}
            command = [sys.executable, __file__, "--folder", str(folder)]
            result = subprocess.run(command, env=environment, capture_output=True, text=True)
            seconds = time.perf_counter() - begin
            if "PEAK 0" not in result.stdout:
                sys.exit(result.stderr[-2000:])
            own, peak = result.stdout.split("PEAK 0 ")[1].split()
            written = sum(p.stat().st_size for p in (folder / "out").rglob("*") if p.is_file()) / 1e6
            print(
                f"| {pairs:>7,} | {written:>10,.0f} | {own:>12} | {peak:>12} | {seconds:>7.0f} |", flush=True
            )


if __name__ == "__main__":
    main()
