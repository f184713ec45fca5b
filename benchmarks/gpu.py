"""What has to be run on a GPU, each part compared with its reference on the CPU, in one table.

    python -m benchmarks.gpu           # one GPU, ten minutes at most
    python -m benchmarks.gpu --toy     # the same parts at toy size, on a CPU

Nothing is downloaded or installed: models are random and made on the spot, texts are drawn from their
vocabulary. A part runs in a process of its own; what it prints goes into a file, named where it fails.

A part "agrees", "differs" (it ran, and is not what the reference is), "failed" (it broke off, or took too
long) or is "skipped" (a library or a device is missing: the table says which). Exit status: 0 where parts ran
and every one that ran agrees; 1 where one differs or failed; 2 where none ran. A part that was skipped has
not passed, and the last line counts it.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

LOSS = {"fp32": 1e-4, "bf16": 0.02, "fp16": 0.02}
NORM = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.05}
ANGLE = {"fp32": 1e-5, "bf16": 1e-3, "fp16": 1e-3}
"""How far losses, gradients' norms (as a share) and embeddings (1 - cosine) may be from those of the CPU in
fp32. The tests have mistakes that are further."""


@dataclass(frozen=True)
class Setting:
    """Where and how large the parts run.

    Attributes:
        device: "cuda" or "cpu".
        folder: Where models and references lie.
        layers: Of the encoder; its other sizes next.
        lengths: Of the texts; see `benchmarks.training`.
        batch: Instances a step, where it is compared with the CPU; `steps` of these.
        speed_batch: Instances a step, where it is timed; `speed_steps` of these.
        rivals: What sentence-transformers is tried with.
        llama: The shape of the LLM.
        requests: How many are asked of it.
        documents: That are mined from.
        overlap: Share of the mined negatives that have to be the reference's. Of a random encoder's many
            near ties a half-precision one may turn some.
    """

    device: str
    folder: Path
    toy: bool = False
    layers: int = 12
    width: int = 768
    heads: int = 12
    lengths: str = "msmarco"
    batch: int = 32
    steps: int = 3
    negatives: int = 4
    speed_batch: int = 256
    speed_steps: int = 6
    rivals: tuple[str, ...] = ("plain", "cached:64", "cached:256", "cached:tokens32768")
    llama: tuple[int, int, int] = (2048, 24, 16)
    requests: int = 1024
    turns: int = 2
    documents: int = 3_000
    overlap: float = 0.97

    @property
    def encoder(self) -> str:
        """The encoder's folder."""
        return str(self.folder / "encoder" / "model")


def toy(setting: Setting) -> Setting:
    """Returns the setting at toy size."""
    return replace(
        setting,
        toy=True,
        layers=2,
        width=64,  # bitsandbytes' blocks are of 64.
        heads=2,
        lengths="short",
        batch=8,
        negatives=2,
        speed_batch=8,
        speed_steps=3,
        rivals=("plain", "cached:4"),
        llama=(64, 2, 2),
        requests=6,
        turns=1,
        documents=200,
        overlap=0.9,
    )


@dataclass
class Outcome:
    """What a part gave.

    Attributes:
        agrees: Whether it is what the reference is.
        measured: What it took, for people.
        against: How far it is from the reference, for people.
    """

    agrees: bool
    measured: str
    against: str


class Skipped(Exception):
    """A part cannot run here; the message says what is missing."""


class Failed(Exception):
    """A part broke off; the message says why."""


# Processes ------------------------------------------------------------------------------------------------


def apart(function: Callable[..., Any], *arguments: Any, seconds: float, log: Path, fork: bool) -> Any:
    """Returns what a function returns in a process of its own.

    Args:
        function: A function of a module.
        *arguments: Its arguments.
        seconds: How long it may take.
        log: Where what it prints goes.
        fork: Whether to fork, which saves the imports; a process that has forked can use no GPU.

    Raises:
        Skipped: As the function does.
        Failed: Where it raises anything else, dies or takes too long.
    """
    context: Any = multiprocessing.get_context("fork" if fork else "spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(send, log, function, arguments))
    process.start()
    send.close()
    try:
        kind, value = receive.recv() if receive.poll(seconds) else ("failed", f"more than {seconds:.0f} s")
    except EOFError:
        process.join()
        kind, value = "failed", f"its process ended with {process.exitcode}"
    finally:
        receive.close()
        # Its own processes (vLLM's) go with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    if kind == "skipped":
        raise Skipped(value)
    if kind == "failed":
        raise Failed(f"{value}; see {log}")
    return value


def _child(send: Any, log: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        answer = ("done", function(*arguments))
    except Skipped as reason:
        answer = ("skipped", str(reason))
    except BaseException as error:
        traceback.print_exc()
        told = str(error).strip().splitlines() or [""]
        answer = ("failed", f"{type(error).__name__}: {told[0][:200]}")
    send.send(answer)
    send.close()
    sys.stdout.flush()


# Training -------------------------------------------------------------------------------------------------


def make_encoder(setting: Setting) -> None:
    """Writes a random BERT as a SentenceTransformer.

    Its weights are drawn wider than is usual, so that embeddings differ, and a mistake is seen.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = Path(setting.encoder).parent
    syllables = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]
    words = [a + b for a in syllables for b in syllables]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=setting.width,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        intermediate_size=4 * setting.width,
        max_position_embeddings=512,
        # As wide as gives each layer's output the scale of its input, whatever the width.
        initializer_range=setting.width**-0.5,
    )
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer = BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=512)
    tokenizer.save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert")), Pooling(setting.width, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(setting.encoder)


def options_of(setting: Setting, device: str, precision: str, **training: Any) -> dict[str, Any]:
    """Returns options of `benchmarks.training.train`."""
    return {
        "device": device,
        "precision": precision,
        "model": setting.encoder,
        "lengths": setting.lengths,
        "negatives": setting.negatives,
        "batch": setting.batch,
        "steps": setting.steps,
        "training": {"learning_rate": 1e-4, "output_dir": str(setting.folder / "trained"), **training},
    }


def trained(options: dict[str, Any], model: Any = None) -> dict[str, Any]:
    """Trains some steps and returns losses, norms and what embeddings are like then."""
    from benchmarks.training import train

    # The guard's look comes before the first step, and in it bitsandbytes packs weights on a CPU for good.
    options = options | {"training": options["training"] | {"guard": "off"}}
    figures, trainer = train("syneg", options, model)
    plain = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False).eval()
    words = sorted(w for w in plain.tokenizer.get_vocab() if w.isalpha())
    texts = [" ".join(words[i : i + 7 * i + 3]) for i in range(1, 9)]
    figures["embeddings"] = plain.encode(texts, normalize_embeddings=True).tolist()
    figures |= {"chunk_tokens": trainer._budget.tokens, "kind": str(trainer.accelerator.distributed_type)}
    return figures


def reference(setting: Setting) -> None:
    """Makes the encoder, trains it on the CPU in fp32, and writes down what that gave."""
    make_encoder(setting)
    figures = trained(options_of(setting, "cpu", "fp32"))
    (setting.folder / "reference.json").write_text(json.dumps(figures))


def compared(found: dict[str, Any], expected: dict[str, Any], precision: str, measured: str = "") -> Outcome:
    """Compares losses, norms and embeddings with the reference's."""
    import numpy as np

    losses, norms = (
        np.abs(np.subtract(found[name], expected[name]) / (expected[name] if relative else 1)).max()
        for name, relative in (("losses", False), ("grad_norms", True))
    )
    cosines = np.sum(np.multiply(found["embeddings"], expected["embeddings"]), axis=1)
    angle = float(1 - cosines.min())
    agrees = losses <= LOSS[precision] and norms <= NORM[precision] and angle <= ANGLE[precision]
    against = f"loss {losses:.1e}, norm {norms:.1%}, 1 - cosine {angle:.1e} off"
    return Outcome(bool(agrees), measured or f"{found['step']:.3f} s a step", against)


def of_reference(setting: Setting) -> dict[str, Any]:
    """Returns what `reference` wrote."""
    found: dict[str, Any] = json.loads((setting.folder / "reference.json").read_text())
    return found


def in_precision(setting: Setting, precision: str) -> Outcome:
    """Trains in half precision, and against sentence-transformers at its best."""
    import torch

    from benchmarks.training import train

    if setting.device == "cpu":
        precision = "bf16"  # accelerate has no fp16 on a CPU; the path is the same.
    outcome = compared(
        trained(options_of(setting, setting.device, precision)), of_reference(setting), precision
    )
    timed = options_of(setting, setting.device, precision)
    timed |= {"batch": setting.speed_batch, "steps": setting.speed_steps}
    found: dict[str, dict[str, Any]] = {}
    for name in ("syneg", *setting.rivals):
        gc.collect()
        if setting.device == "cuda":
            torch.cuda.empty_cache()
        try:
            found[name] = train(name, timed)[0]
        except torch.OutOfMemoryError:
            print(f"{name}: out of memory")
    ours = found.pop("syneg")
    best = min(found, key=lambda name: float(found[name]["step"]))
    off = max(abs(a - b) for a, b in zip(ours["losses"], found[best]["losses"], strict=True))
    ratio, less = found[best]["step"] / ours["step"], ours["memory"] / max(found[best]["memory"], 1)
    memory = f", {less:.2f} of its memory" if setting.device == "cuda" else ""
    outcome.measured = f"{ours['step']:.3f} s a step, {ratio:.2f} times as fast as {best}{memory}"
    outcome.against += f"; {off:.1e} off {best}"
    outcome.agrees &= off <= LOSS[precision]
    return outcome


def bf16(setting: Setting) -> Outcome:
    """bf16 training against sentence-transformers at its best."""
    return in_precision(setting, "bf16")


def fp16(setting: Setting) -> Outcome:
    """fp16 training, with its scaled loss."""
    return in_precision(setting, "fp16")


def variable_length(setting: Setting) -> Outcome:
    """Flash attention on texts end to end, without padding."""
    name = "flash_attention_2" if importlib.util.find_spec("flash_attn") else stand_in_for_flash()
    if name == "flash_attention_2" and setting.device == "cpu":
        name = stand_in_for_flash()
    flat = []
    from syneg.training.texts import Padder

    layout = Padder._flat

    def counted(self: Padder, *args: Any) -> Any:
        flat.append(1)
        return layout(self, *args)

    Padder._flat = counted  # type: ignore[method-assign]
    found = trained(options_of(setting, setting.device, "bf16", attention=name))
    outcome = compared(found, of_reference(setting), "bf16")
    outcome.measured += f", {len(flat)} chunks without padding by {name}"
    outcome.agrees &= bool(flat)
    return outcome


def stand_in_for_flash() -> str:
    """Registers an attention over texts end to end that needs no package, and returns its name.

    On a GPU it is torch's own kernel, on a CPU one product a text.
    """
    import torch
    from sentence_transformers.base.modules import Transformer
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import AttentionInterface, AttentionMaskInterface, modeling_flash_attention_utils

    def segments(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: Any = None, **kwargs: Any
    ) -> tuple[Any, None]:
        ends, longest = kwargs["cu_seq_lens_q"], kwargs["max_length_q"]
        if query.device.type == "cuda":
            from torch.nn.attention.varlen import varlen_attn

            parts = [x[0].transpose(0, 1).contiguous() for x in (query, key, value)]
            return varlen_attn(*parts, ends, ends, longest, longest, scale=scaling).unsqueeze(0), None
        sizes = ends.diff().tolist()
        triples = zip(*(x.split(sizes, dim=2) for x in (query, key, value)), strict=True)
        outs = [scaled_dot_product_attention(*triple, scale=scaling) for triple in triples]
        return torch.cat(outs, dim=2).transpose(1, 2), None

    AttentionInterface.register("segments", segments)
    AttentionMaskInterface.register("segments", lambda *args, **kwargs: None)
    asked = Transformer._is_flash_attention_requested
    Transformer._is_flash_attention_requested = lambda self: (  # type: ignore[method-assign]
        self.config._attn_implementation == "segments" or asked(self)
    )
    found = ((segments, segments, None, None, None), (dict, dict))
    modeling_flash_attention_utils.lazy_import_flash_attention = lambda *args, **kwargs: found
    return "segments"


def qlora(setting: Setting) -> Outcome:
    """QLoRA: adapters on 4-bit weights, against adapters on what these weights are in full."""
    needs("bitsandbytes")
    import bitsandbytes
    import torch

    from benchmarks.training import no_dropout, words_of
    from syneg.training.run import TrainArguments, load_model

    adapters = {"lora_rank": 8, "lora_modules": "query,value,dense"}
    script = TrainArguments(setting.encoder, "", max_length=256, **adapters, quantize="4bit")
    four_bit = load_model(script)
    full = load_model(replace(script, quantize="none")).to("cpu")
    state = four_bit.state_dict()
    full.load_state_dict({k: v.float().cpu() for k, v in state.items() if "lora_" in k}, strict=False)
    count = 0
    for name, layer in four_bit.named_modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            with torch.no_grad():
                full.get_submodule(name).weight.copy_(weight.float().cpu())
            count += 1
    no_dropout(four_bit)
    no_dropout(full)
    found = trained(options_of(setting, setting.device, "bf16"), (four_bit, words_of(four_bit)))
    expected = trained(options_of(setting, "cpu", "fp32"), (full, words_of(full)))
    outcome = compared(found, expected, "bf16")
    outcome.measured += f", {count} layers in 4 bits"
    outcome.agrees &= count > 0
    return outcome


def deepspeed(setting: Setting) -> Outcome:
    """DeepSpeed ZeRO-2 on one device, by the recipe's settings."""
    needs("deepspeed")
    from tests.stand_in import free_port

    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_PORT": str(free_port())}
    precision, training = "bf16", {}
    if setting.device == "cpu":
        # transformers has DeepSpeed on an accelerator only: it is told that the CPU is one.
        os.environ["DS_ACCELERATOR"] = "cpu"
        import torch
        from deepspeed import ops

        torch.accelerator.is_available = lambda: True
        # Shared memory between processes, which takes a minute to compile; here is one.
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
        precision, training = "fp32", {"use_cpu": False}
    config = {
        "zero_optimization": {"stage": 2},
        "bf16": {"enabled": "auto"},
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
    }
    found = trained(options_of(setting, setting.device, precision, deepspeed=config, **training))
    outcome = compared(found, of_reference(setting), precision)
    outcome.measured += f", accelerate says {found['kind']}"
    outcome.agrees &= found["kind"].endswith("DEEPSPEED")
    return outcome


def compiled(setting: Setting) -> Outcome:
    """torch.compile; at toy size without making kernels, which takes most of the time."""
    backend = {"torch_compile_backend": "aot_eager"} if setting.toy else {}
    training = {"torch_compile": True, **backend}
    found = trained(options_of(setting, setting.device, "bf16", **training))
    return compared(found, of_reference(setting), "bf16")


def out_of_memory(setting: Setting) -> Outcome:
    """Memory that runs out: chunks are halved, and the training is the same."""
    import torch

    from benchmarks.training import load_model

    chunk = 65_536 if setting.device == "cuda" else 256
    options = options_of(setting, setting.device, "bf16", gradient_cache="always", chunk_tokens=chunk)
    model, words = load_model(setting.device, "bf16", setting.encoder)
    if setting.device == "cuda":
        # Once as it is, to know what it takes beside weights, gradients and the optimizer's state.
        trained(options)
        fixed = 16 * sum(p.numel() for p in model.parameters())
        limit = fixed + 0.6 * (torch.cuda.max_memory_allocated() - fixed)
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.mem_get_info()[1])
        said = f"{limit / 2**30:.1f} GiB"
    else:
        forward, said = model.forward, "pretended"

        def limited(features: dict[str, Any], **kwargs: Any) -> Any:
            if model.training and features["input_ids"].numel() > chunk // 2:
                raise torch.OutOfMemoryError("pretended")
            return forward(features, **kwargs)

        model.forward = limited
    found = trained(options, (model, words))
    outcome = compared(found, of_reference(setting), "bf16")
    outcome.measured = f"chunks of {chunk} tokens became {found['chunk_tokens']} ({said})"
    outcome.agrees &= found["chunk_tokens"] < chunk
    return outcome


# Mining and writing ---------------------------------------------------------------------------------------


def random_source(setting: Setting) -> Any:
    """Returns a source of documents and queries of the encoder's words."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    from benchmarks.training import words_of
    from tests.stand_in import small

    draw, words = np.random.default_rng(0), words_of(SentenceTransformer(setting.encoder, device="cpu"))
    documents = [" ".join(draw.choice(words, size=draw.integers(20, 90))) for _ in range(setting.documents)]
    count = setting.documents // 10
    # A query is a piece of its document, so that scores differ.
    queries = [" ".join(text.split()[:12]) for text in documents[:count]]
    return small(documents, queries, train={f"q{i}": {f"d{i}": 1} for i in range(count)})


def mining(setting: Setting) -> Outcome:
    """Encoding and the exact search on the device, in bf16, against the CPU in fp32."""
    from syneg.mining.arguments import MiningArguments
    from syneg.mining.mine import mine_pairs

    source = random_source(setting)
    pairs = source.pairs("train")
    lists, seconds = {}, {}
    for device, precision in ((setting.device, "bf16"), ("cpu", "fp32")):
        args = MiningArguments(
            miners="dense",
            encoder=setting.encoder,
            encode_precision=precision,
            mining_device=device,
            mining_cache=str(setting.folder / f"cache-{precision}"),
            relative_margin="{}",
        )
        begin = time.perf_counter()
        mined = mine_pairs(pairs, args)
        seconds[precision] = time.perf_counter() - begin
        lists[precision] = [{negative["doc_id"] for negative in negatives} for negatives in mined]
    shared = sum(len(a & b) for a, b in zip(lists["bf16"], lists["fp32"], strict=True))
    share = shared / sum(map(len, lists["fp32"]))
    texts = len(source.corpus) + len(source.queries)
    measured = f"{texts / seconds['bf16']:.0f} texts/s, {texts / seconds['fp32']:.0f} in the reference"
    return Outcome(share >= setting.overlap, measured, f"{share:.1%} of the negatives are the reference's")


def faiss_search(setting: Setting) -> Outcome:
    """faiss on the device, and our own search there, against faiss on the CPU."""
    import faiss
    import numpy as np

    from syneg.mining.embeddings import Embeddings
    from syneg.mining.search import search_flat

    draw = np.random.default_rng(0)
    documents = draw.standard_normal((100 * setting.documents, 128), dtype=np.float32)
    queries = documents[: setting.documents // 10] + draw.standard_normal(128, dtype=np.float32) / 4
    expected = search_flat(queries, Embeddings([documents]), 10, 32_768, "cpu")
    begin = time.perf_counter()
    ours = search_flat(queries, Embeddings([documents]), 10, 32_768, setting.device)
    taken = time.perf_counter() - begin
    index: Any = faiss.IndexFlatIP(documents.shape[1])
    note = "faiss has no GPU here: its index on the CPU"
    if setting.device == "cuda" and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        note = "faiss on the GPU"
    index.add(documents)
    begin = time.perf_counter()
    found = index.search(queries, 10)[1]
    theirs = time.perf_counter() - begin
    shares = [float((rows == expected.rows).mean()) for rows in (ours.rows, found)]
    measured = f"ours {taken:.2f} s, {note} {theirs:.2f} s"
    against = f"{shares[0]:.2%} of our ranks and {shares[1]:.2%} of its are the reference's"
    return Outcome(min(shares) >= 0.999, measured, against)


def writing(setting: Setting) -> Outcome:
    """vLLM under the schema: our path against its own, and what it computes against transformers."""
    needs("vllm")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from benchmarks.generation import both_paths, start_llm

    width, layers, heads = setting.llama
    shape = {"hidden_size": width, "layers": layers, "heads": heads}
    options: dict[str, Any] = {"dtype": "float32"}
    if setting.device == "cuda":
        # Eager, on a CPU: kernels are not worth making for a run that short.
        options = {"dtype": "bfloat16", "enforce_eager": False, "enable_chunked_prefill": True}
        options |= {"max_num_seqs": 256, "gpu_memory_utilization": 0.5}
    llm, model = start_llm(setting.folder, shape, **options)
    asked = argparse.Namespace(requests=setting.requests, turns=setting.turns)
    figures = both_paths(llm, model, asked, setting.folder)
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer("Which of the rivers runs through the town, and where does it rise?" * 4)["input_ids"]
    theirs = torch.tensor(prompt_logprobs(llm, ids))
    llama = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        logits = llama(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    off = float((theirs - logits[range(len(ids) - 1), ids[1:]]).abs().mean())
    rates = {name: setting.requests / min(times) for name, times in figures["seconds"].items()}
    measured = (
        f"{rates['ours']:.1f} requests/s, {rates['bare']:.1f} by LLM.chat, prefix cache "
        f"{figures['cached_shares'][-1]:.0%}"
    )
    # `both_paths` has seen to it that every completion keeps to the schema.
    return Outcome(off <= 0.05, measured, f"log-probabilities {off:.1e} off transformers")


def prompt_logprobs(llm: Any, ids: list[int]) -> list[float]:
    """Returns what vLLM gives for a prompt's tokens, from the second on."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    (output,) = llm.generate([TokensPrompt(prompt_token_ids=ids)], params, use_tqdm=False)
    return [found[token].logprob for token, found in zip(ids[1:], output.prompt_logprobs[1:], strict=True)]


def needs(package: str) -> None:
    """Skips a part where a package is missing."""
    if importlib.util.find_spec(package) is None:
        raise Skipped(f"{package} is not installed")


PARTS: dict[str, Callable[[Setting], Outcome]] = {
    "bf16": bf16,
    "fp16": fp16,
    "flash": variable_length,
    "qlora": qlora,
    "deepspeed": deepspeed,
    "compile": compiled,
    "memory": out_of_memory,
    "mining": mining,
    "faiss": faiss_search,
    "vllm": writing,
}
MINUTES = {"vllm": 3.5, "bf16": 2.5}
"""What a part may take at most; 1.5 where it does not say."""


# The table ------------------------------------------------------------------------------------------------


def has_gpu() -> bool:
    """Returns whether torch finds a GPU; to be asked in a process of its own."""
    import torch

    return torch.cuda.is_available()


def import_all() -> None:
    """Imports what all parts need, so that forked processes have it."""
    import benchmarks.training  # noqa: F401
    import syneg.training.trainer  # noqa: F401


def main() -> int:
    """Runs the parts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="all parts at toy size, on a CPU")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--without", nargs="+", choices=list(PARTS), default=[])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all; the rest is skipped")
    parser.add_argument("--logs", type=Path, help="where what the parts print is kept")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    logs = options.logs or Path(tempfile.mkdtemp(prefix="syneg-gpu-"))
    logs.mkdir(parents=True, exist_ok=True)
    if options.toy:
        import_all()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HF_DATASETS_CACHE"] = temporary + "/datasets"
        setting = Setting("cpu" if options.toy else "cuda", Path(temporary))
        setting = toy(setting) if options.toy else setting

        def run(name: str, part: Callable[..., Any], *arguments: Any) -> Any:
            # A CPU is often shared, a GPU seldom.
            most = 60 * MINUTES.get(name, 1.5) * (3 if options.toy else 1)
            seconds = min(end - time.monotonic(), most)
            if seconds <= 0:
                raise Skipped("no time was left")
            return apart(part, *arguments, seconds=seconds, log=logs / f"{name}.log", fork=options.toy)

        if not options.toy and not run("device", has_gpu):
            print("torch finds no GPU; --toy runs on a CPU", file=sys.stderr)
            return 2
        return report(run, setting, [name for name in options.only if name not in options.without])


def report(run: Callable[..., Any], setting: Setting, names: list[str]) -> int:
    """Runs the parts, prints a line for each as it ends, and returns the exit status."""
    print(f"{'part':11}{'result':9}{'seconds':>8}  measured; against the reference")
    counts = dict.fromkeys(("agrees", "differs", "failed", "skipped"), 0)
    try:
        run("reference", reference, setting)
    except (Failed, Skipped) as reason:
        print(f"{'reference':11}{'failed':9}{'':8}  {reason}")
        return 1
    for name in names:
        begin = time.monotonic()
        try:
            outcome = run(name, PARTS[name], setting)
            result = "agrees" if outcome.agrees else "differs"
            said = f"{outcome.measured}; {outcome.against}"
        except Skipped as reason:
            result, said = "skipped", str(reason)
        except Failed as reason:
            result, said = "failed", str(reason)
        counts[result] += 1
        print(f"{name:11}{result:9}{time.monotonic() - begin:8.1f}  {said}", flush=True)
    print(", ".join(f"{count} {result}" for result, count in counts.items()))
    if counts["differs"] or counts["failed"]:
        return 1
    return 0 if counts["agrees"] else 2


if __name__ == "__main__":
    sys.exit(main())
