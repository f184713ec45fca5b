"""Tokenised texts without padding, and the features that a model takes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from syneg.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BLOCK = 256
"""Texts tokenised in one call: enough to keep the tokenizer's threads busy, little padding to undo."""


@dataclass
class Texts:
    """n tokenised texts, end to end.

    Attributes:
        tokens: One value a token by feature name (input_ids, token_type_ids), each of shape (T,).
        lengths: Tokens of each text, shape (n,); their sum is T.
        prompt: Which prompt each text has, shape (n,).
        prompt_lengths: For each prompt, the tokens that pooling leaves out, 0 where it leaves out none.
    """

    tokens: dict[str, Tensor]
    lengths: Tensor
    prompt: Tensor
    prompt_lengths: list[int]

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def join(cls, parts: Sequence[Texts]) -> Texts:
        """Returns the texts of all parts, one part's after the other's."""
        if len(parts) == 1:
            return parts[0]
        lengths = sorted({length for part in parts for length in part.prompt_lengths})
        prompts = [torch.tensor([lengths.index(x) for x in part.prompt_lengths]) for part in parts]
        return cls(
            {name: torch.cat([part.tokens[name] for part in parts]) for name in parts[0].tokens},
            torch.cat([part.lengths for part in parts]),
            torch.cat([p[part.prompt] for part, p in zip(parts, prompts, strict=True)]),
            lengths,
        )


def tokenize(model: SentenceTransformer, texts: Sequence[tuple[str, str]]) -> Texts:
    """Tokenises texts with the model's own preprocessing.

    Args:
        model: The model; what is longer than its `max_seq_length` is cut.
        texts: (prompt, text) of each, at least one.

    Raises:
        InputError: Where the model's preprocessing gives no token sequences (a bag of words, say).
    """
    prompts = list(dict.fromkeys(prompt for prompt, _ in texts))
    spans: list[dict[str, Tensor] | None] = [None] * len(texts)
    prompt_lengths = [0] * len(prompts)
    for which, prompt in enumerate(prompts):
        # Texts of similar length in one call: characters are a good enough measure.
        places = [i for i, (p, _) in enumerate(texts) if p == prompt]
        places.sort(key=lambda i: len(texts[i][1]))
        for start in range(0, len(places), _BLOCK):
            block = places[start : start + _BLOCK]
            features = model.preprocess([texts[i][1] for i in block], prompt=prompt or None)
            prompt_lengths[which] = int(features.get("prompt_length", 0))
            for place, span in zip(block, _unpadded(features, len(block)), strict=True):
                spans[place] = span
    if not _excludes_prompt(model):
        prompt_lengths = [0] * len(prompts)
    found = [span for span in spans if span is not None]
    return Texts(
        {name: torch.cat([span[name] for span in found]) for name in found[0]},
        torch.tensor([len(span["input_ids"]) for span in found]),
        torch.tensor([prompts.index(prompt) for prompt, _ in texts]),
        prompt_lengths,
    )


def _excludes_prompt(model: SentenceTransformer) -> bool:
    return any(getattr(module, "include_prompt", True) is False for module in model)


def _unpadded(features: dict[str, Any], count: int) -> list[dict[str, Tensor]]:
    """Takes a batch of features apart, text by text, without the padding."""
    if "cu_seq_lens_q" in features:  # Flash attention's layout: end to end already.
        ends = features["cu_seq_lens_q"].tolist()
        ids = features["input_ids"].reshape(-1)
        return [{"input_ids": ids[a:b]} for a, b in itertools.pairwise(ends)]
    mask = features.get("attention_mask")
    if not isinstance(mask, Tensor) or "input_ids" not in features:
        raise InputError(
            f"the model's preprocessing gives {', '.join(map(str, features)) or 'nothing'}; training needs a "
            "transformer with input_ids and attention_mask."
        )
    kept = mask.bool()
    lengths = kept.sum(dim=1).tolist()
    names = [
        name
        for name, value in features.items()
        if isinstance(value, Tensor) and value.shape == mask.shape and name != "attention_mask"
    ]
    parts = {name: features[name][kept].split(lengths) for name in names}
    return [{name: parts[name][i] for name in names} for i in range(count)]


class Padder:
    """Turns chunks of `Texts` into the features that the model's forward takes.

    With flash attention's variable-length kernels there is no padding: the texts of a chunk go end to
    end.

    Args:
        model: The model.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.module = model[0]
        tokenizer = model.tokenizer
        self.left = getattr(tokenizer, "padding_side", "right") == "left"
        self.fill = {
            "input_ids": getattr(tokenizer, "pad_token_id", None) or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", None) or 0,
        }

    def features(self, texts: Texts, starts: Tensor, chunk: Sequence[int]) -> dict[str, Any]:
        """Returns the features of one chunk.

        Args:
            texts: All texts; their tokens may be on another device than their lengths.
            starts: Where each text begins, shape (n,).
            chunk: Positions of the chunk's texts.
        """
        device = next(iter(texts.tokens.values())).device
        places = torch.as_tensor(chunk)
        lengths, begin = texts.lengths[places], starts[places]
        features: dict[str, Any] = {"modality": "text"}
        if prompt_length := texts.prompt_lengths[int(texts.prompt[chunk[0]])]:
            features["prompt_length"] = prompt_length
        if getattr(self.module, "can_flatten_inputs", False):
            return features | self._flat(texts, begin, lengths, device)
        width = int(lengths.max())
        offsets = torch.arange(width).unsqueeze(0)
        if self.left:
            offsets = offsets - (width - lengths).unsqueeze(1)
        mask = (offsets >= 0) & (offsets < lengths.unsqueeze(1))
        index = torch.where(mask, begin.unsqueeze(1) + offsets, 0).to(device)
        mask = mask.to(device)
        for name, values in texts.tokens.items():
            features[name] = torch.where(mask, values[index], self.fill.get(name, 0))
        features["attention_mask"] = mask.to(torch.int64)
        return features

    def _flat(self, texts: Texts, begin: Tensor, lengths: Tensor, device: torch.device) -> dict[str, Any]:
        ends = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        positions = torch.arange(int(ends[-1])) - torch.repeat_interleave(ends[:-1], lengths)
        index = torch.repeat_interleave(begin, lengths) + positions
        cumulative = ends.to(torch.int32).to(device)
        return {
            "input_ids": texts.tokens["input_ids"][index.to(device)].unsqueeze(0),
            "position_ids": (positions + getattr(self.module, "_flatten_position_offset", 0))
            .unsqueeze(0)
            .to(device),
            "seq_idx": torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int32), lengths)
            .unsqueeze(0)
            .to(device),
            "cu_seq_lens_q": cumulative,
            "cu_seq_lens_k": cumulative,
            "max_length_q": int(lengths.max()),
            "max_length_k": int(lengths.max()),
        }
