"""The rates of a CPU that `syneg.rates` holds, measured, and the tables of the page on costs.

    python -m benchmarks.costs measure
    python -m benchmarks.costs tables

`measure` takes one thread, in bf16 where the processor has it. Time is that of the processor, not of the
clock, so that other work on the machine counts for little; two cores are taken to do twice what one does. The
page on costs holds what `tables` prints; a test compares them.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import numpy as np
import torch

from benchmarks.training import LENGTHS, load_model, make_rows, train
from syneg.mining.embeddings import Embeddings, choose_dtype, encode_texts
from syneg.mining.search import search_flat
from syneg.rates import (
    HARDWARE,
    LLM_PARAMETERS,
    MINILM,
    encode_flops,
    encode_seconds,
    parameters_of,
    search_flops,
    search_seconds,
    train_flops,
    train_seconds,
    write_seconds,
    written_rate,
)

TURNS = 5


EXAMPLES = {
    # Documents, their tokens, queries' tokens, pairs, the retriever's parameters beside its tables.
    "SciFact, MiniLM": (5_183, 256, 20, 919, MINILM),
    "100,000 passages, a base model": (100_000, 100, 12, 10_000, 85_054_464),
    "MS MARCO, a large model": (8_841_823, 75, 10, 502_939, 302_309_376),
}
NEGATIVES, COMPLETION, ENGINES = 4, 300, 8
"""Of a pair in training; tokens that an LLM writes for one; engines of the cluster."""


def rate_table() -> list[str]:
    """Returns the rates as a table for the page."""
    lines = [
        "| | encoding | training | search | writing, a model of 8 billion |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for one in HARDWARE.values():
        written = "not known" if one.written is None else f"{one.written:,.0f} tokens/s"
        most = f", {one.texts:,.0f} texts/s at most" if one.texts else ""
        flops = [f"{rate / 1e12:.3g} T" for rate in (one.encode, one.train, one.search)]
        lines.append(f"| {one.title} | {flops[0]}{most} | {flops[1]} | {flops[2]} | {written} |")
    return lines


def example_table() -> list[str]:
    """Returns what some sources cost as a table for the page."""
    lines = ["| | on | mining | writing | training, an epoch |", "| --- | --- | ---: | ---: | ---: |"]
    for name, (documents, length, query, pairs, parameters) in EXAMPLES.items():
        for one, machines in ((HARDWARE["cpu"], 1), (HARDWARE["gpu"], 1), (HARDWARE["gpu"], ENGINES)):
            mining = encode_seconds(documents, length, parameters, one)
            mining += encode_seconds(pairs, query, parameters, one) + search_seconds(pairs, documents, one)
            training = train_seconds(pairs, NEGATIVES, query, length, parameters, one)
            rate = written_rate(LLM_PARAMETERS, one)
            writing = "not known" if rate is None else told(write_seconds(pairs, COMPLETION, rate, machines))
            title = one.title if machines == 1 else f"{machines} of these"
            cells = [told(seconds / machines) for seconds in (mining, training)]
            lines.append(f"| {name} | {title} | {cells[0]} | {writing} | {cells[1]} |")
    return lines


def told(seconds: float) -> str:
    """Returns a time for people."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def main() -> None:
    """Measures, or prints the tables."""
    if sys.argv[1:] == ["measure"]:
        measure()
    elif sys.argv[1:] == ["tables"]:
        print("\n".join([*rate_table(), "", *example_table()]))
    else:
        sys.exit(__doc__)


def measure() -> None:
    """Prints the rates in floating-point operations a second."""
    torch.set_num_threads(1)
    model, vocabulary = load_model("cpu", "fp32")
    parameters = parameters_of(model[0].model.config)
    assert parameters is not None
    held = sum(p.numel() for name, p in model.named_parameters() if ".layer." in name)
    print(f"parameters beside the tables: {parameters:,} by the configuration, {held:,} held in the layers")
    model = model.to(choose_dtype("auto", "cpu"))
    documents = [row["positive"] for row in make_rows(128, "msmarco", 0, vocabulary)]
    tokens = np.mean([len(text.split()) + 2 for text in documents])
    encode_texts(model, documents, "document", None)
    print(f"encoding ({len(documents)} documents of {tokens:.0f} tokens, {next(model.parameters()).dtype}):")
    rates = []
    for _ in range(TURNS):
        begin = time.process_time()
        encode_texts(model, documents, "document", None)
        rates.append(encode_flops(len(documents), tokens, parameters) / (time.process_time() - begin))
    print(f"  {median(rates):.2e} a second ({min(rates):.2e} to {max(rates):.2e})")

    options = {"device": "cpu", "precision": "bf16", "lengths": "msmarco", "batch": 8, "negatives": 4}
    figures, _ = train("syneg", options | {"steps": TURNS + 1})
    (query, _), _ = LENGTHS["msmarco"]
    work = train_flops(8, 4, query + 2, tokens, parameters)
    print(f"training (8 pairs a step, 4 negatives, queries of {query + 2} tokens, bf16):")
    print(f"  {work / figures['cpu']:.2e} a second (median step of {figures['cpu']:.2f} s)")

    draw = np.random.default_rng(0)
    corpus = draw.standard_normal((50_000, 384), dtype=np.float32)
    queries = draw.standard_normal((1_000, 384), dtype=np.float32)
    rates = []
    for _ in range(TURNS):
        begin = time.process_time()
        search_flat(queries, Embeddings([corpus]), 100, 32_768, "cpu")
        rates.append(search_flops(len(queries), len(corpus), 384) / (time.process_time() - begin))
    print("exact search (1,000 queries, 50,000 documents of 384 numbers, the best 100):")
    print(f"  {median(rates):.2e} a second ({min(rates):.2e} to {max(rates):.2e})")


if __name__ == "__main__":
    main()
