"""Peak memory and time of writing a data set folder, by number of rows.

    python benchmarks/folder_memory.py --rows 20000 200000

Each size runs in a process of its own: 20 negatives a row, passages of MS MARCO's length (56 words),
all three configurations in one pass. Peak resident memory is the kernel's figure for the process.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NEGATIVES, WORDS, VOCABULARY = 20, 56, 50_000


def make_rows(count):
    from syneg.rows import make_negative, make_row

    rng = random.Random(0)
    vocabulary = [f"word{i}" for i in range(VOCABULARY)]
    for i in range(count):
        texts = [" ".join(rng.choices(vocabulary, k=WORDS)) for _ in range(NEGATIVES + 1)]
        negatives = [
            make_negative(text, "synthetic" if k < 2 else "bm25", doc_id=f"d{i}-{k}", rank=k, score=k / 7)
            for k, text in enumerate(texts[1:])
        ]
        yield make_row(f"q{i}", f"query {i}", f"p{i}", texts[0], negatives)


def write(output, count):
    from syneg.hub.cards import DatasetCardInfo
    from syneg.hub.folders import FolderWriter
    from syneg.rows import DROPPED_FEATURES, FEATURES, iter_triplets, make_dropped, triplet_features

    with FolderWriter(output) as folder:
        with (
            folder.open_split("default", "train", FEATURES) as rows,
            folder.open_split("triplet", "train", triplet_features(4)) as triplets,
            folder.open_split("dropped", "train", DROPPED_FEATURES) as dropped,
        ):
            for row in make_rows(count):
                rows.add(row)
                for triplet in iter_triplets([row], 4):
                    triplets.add(triplet)
                dropped.add(make_dropped(row, row["negatives"][0], "length", "too long"))
        folder.write_card(DatasetCardInfo(name="memory"))


def megabytes(kilobytes):
    return kilobytes / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--one", action="store_true", help="measure in this process")
    args = parser.parse_args()
    if not args.one:
        print("|    rows | files, MB | peak memory, MB | growth, MB | seconds |")
        print("| ------: | --------: | --------------: | ---------: | ------: |", flush=True)
        for count in args.rows:
            subprocess.run([sys.executable, __file__, "--one", "--rows", str(count)], check=True)
        return
    (count,) = args.rows
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "warm", 2000)  # the libraries and one row group of each split
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        write(Path(folder) / "data", count)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in (Path(folder) / "data").rglob("*.parquet"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"| {count:>7,} | {size / 2**20:>9,.0f} | {megabytes(peak):>15,.0f} "
        f"| {megabytes(peak - before):>10,.0f} | {seconds:>7,.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
