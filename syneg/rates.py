"""What mining, writing and training cost: one formula, and the rates it is used with.

The page on costs (docs/guides/costs.md) shows both; `--dry_run` reckons with them. Time is work divided by
rate. Work is counted in floating-point operations: a transformer of P parameters (its tables of embeddings
aside) takes 2 P a token forwards, and 6 P forwards and back (Kaplan et al. 2020, arXiv 2001.08361).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MINILM = 10_616_832
"""Parameters of all-MiniLM-L6-v2 beside its tables: taken where a model's own are not known."""
LLM_PARAMETERS = 8.0e9
"""Of the LLM that `Hardware.written` is for."""


@dataclass(frozen=True)
class Hardware:
    """What a machine does in a second.

    Attributes:
        title: What it is.
        encode: Floating-point operations of encoding.
        texts: Texts that are encoded at most, however small the model: reading and cutting them into tokens
            takes its time too. None where that counts for nothing.
        train: Floating-point operations of training.
        search: Floating-point operations of the exact search.
        written: Completion tokens by one engine with an LLM of `LLM_PARAMETERS`; None where not known.
        source: Where the rates come from.
    """

    title: str
    encode: float
    texts: float | None
    train: float
    search: float
    written: float | None
    source: str


HARDWARE = {
    "cpu": Hardware(
        title="two CPU cores",
        # python -m benchmarks.costs measure: twice what one core does. A Xeon with AMX.
        encode=5.3e11,
        texts=None,
        train=3.4e11,
        search=1.8e11,
        written=None,
        source="measured with all-MiniLM-L6-v2 in bf16",
    ),
    "gpu": Hardware(
        title="one H100 or H200",
        # 30% of the peak in bf16 without sparsity (https://glennklockwood.com/garden/processors/h100); the
        # search of the peak in fp32, same page. That share is an assumption.
        encode=0.3 * 989e12,
        # Of all-MiniLM-L6-v2, on an older GPU: https://sbert.net/docs/sentence_transformer/pretrained_models.html
        texts=14_200.0,
        train=0.3 * 989e12,
        search=0.3 * 67e12,
        # vLLM, Llama 3.1 8B in bf16, no schema: https://www.morphllm.com/vllm-benchmarks
        written=12_500.0,
        source="not measured: published peaks, of which 30% are taken, and a published rate of vLLM",
    ),
}


def encode_flops(texts: float, tokens: float, parameters: float) -> float:
    """Returns the work of encoding texts of so many tokens."""
    return 2 * parameters * texts * tokens


def encode_seconds(texts: float, tokens: float, parameters: float, hardware: Hardware) -> float:
    """Returns the time of encoding texts of so many tokens."""
    seconds = encode_flops(texts, tokens, parameters) / hardware.encode
    return max(seconds, texts / hardware.texts) if hardware.texts else seconds


def search_flops(queries: float, documents: float, dimension: float) -> float:
    """Returns the work of the exact search."""
    return 2 * queries * documents * dimension


def search_seconds(queries: float, documents: float, hardware: Hardware, dimension: float = 768) -> float:
    """Returns the time of the exact search."""
    return search_flops(queries, documents, dimension) / hardware.search


def train_flops(
    pairs: float, negatives: float, query_tokens: float, document_tokens: float, parameters: float
) -> float:
    """Returns the work of training on every pair once, with so many negatives each."""
    return 6 * parameters * pairs * (query_tokens + (1 + negatives) * document_tokens)


def train_seconds(
    pairs: float,
    negatives: float,
    query_tokens: float,
    document_tokens: float,
    parameters: float,
    hardware: Hardware,
) -> float:
    """Returns the time of training on every pair once; see `train_flops`."""
    return train_flops(pairs, negatives, query_tokens, document_tokens, parameters) / hardware.train


def write_seconds(completions: float, tokens: float, rate: float, engines: int = 1) -> float:
    """Returns the time of so many completions, by engines that each write at a rate in tokens a second."""
    return completions * tokens / (rate * engines)


def written_rate(parameters: float, hardware: Hardware) -> float | None:
    """Returns the tokens a second that one engine writes with an LLM of that size; None where not known."""
    return None if hardware.written is None else hardware.written * LLM_PARAMETERS / parameters


def parameters_of(config: Any) -> int | None:
    """Returns the parameters of a transformer's layers, by its configuration; None where it does not tell.

    Args:
        config: As transformers has it: hidden and intermediate size, layers, heads and the activation.
    """
    width = getattr(config, "hidden_size", None)
    inner = getattr(config, "intermediate_size", None)
    layers = getattr(config, "num_hidden_layers", None)
    if not (width and inner and layers):
        return None
    heads = getattr(config, "num_attention_heads", 1)
    head = getattr(config, "head_dim", None) or width // heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    attention = 2 * width * head * (heads + keys)
    # Activations that gate have a third matrix.
    gated = str(getattr(config, "hidden_act", "")) in ("silu", "swish")
    return int(layers * (attention + (3 if gated else 2) * width * inner))
