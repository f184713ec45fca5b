"""Activations that are computed again."""

import pytest
import torch
from torch import nn
from transformers import AutoModel, BertConfig, GPTNeoXConfig, ModernBertConfig, Qwen3Config

from syneg.training.recompute import Recipe, Recomputation

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
CONFIGS = {
    "bert": BertConfig(**SIZES, intermediate_size=64),
    "neox": GPTNeoXConfig(**SIZES, intermediate_size=64, max_position_embeddings=32),
    "modernbert": ModernBertConfig(**SIZES, **TOKENS, intermediate_size=64, reference_compile=False),
    "qwen3": Qwen3Config(**SIZES, intermediate_size=64, num_key_value_heads=1, head_dim=16),
}


def saved_bytes(model, inputs, again):
    """A forward's result, and the bytes that its graph keeps beside the weights."""
    kept = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        packed = tensor if again is None else again.pack(tensor)
        if isinstance(packed, torch.Tensor) and packed.untyped_storage().data_ptr() not in weights:
            kept[packed.untyped_storage().data_ptr()] = packed.untyped_storage().nbytes()
        return packed

    unpack = (lambda tensor: tensor) if again is None else again.unpack
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack), (again or Recomputation()).marked(model):
        output = model(**inputs).last_hidden_state
        return output, sum(kept.values())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_are_equal_to_the_bit(name, bf16):
    torch.manual_seed(0)
    model = AutoModel.from_config(CONFIGS[name], attn_implementation="eager").train()
    inputs = {"input_ids": torch.randint(3, 50, (4, 12)), "attention_mask": torch.ones(4, 12).long()}
    found = []
    for again in (None, Recomputation()):
        model.zero_grad()
        torch.manual_seed(1)  # Dropout is on.
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output, kept = saved_bytes(model, inputs, again)
        output.float().square().sum().backward()
        found.append((kept, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (everything, expected), (dear, gradients) = found
    assert all(torch.equal(gradients[n], expected[n]) for n in expected) and len(expected) > 10
    assert dear < 0.85 * everything


def packed(module, size=(2, 3, 8)):
    """What a module's graph saves for its last operation's inputs."""
    found = []
    again = Recomputation()

    def pack(tensor):
        found.append(again.pack(tensor))
        return found[-1]

    with again.marked(module), torch.autograd.graph.saved_tensors_hooks(pack, again.unpack):
        output = module(torch.randn(size, requires_grad=True))
    return output, [what.node.name() for what in found if isinstance(what, Recipe)]


class Product(nn.Module):
    """Multiplies by what has a gradient, or by what has none."""

    def __init__(self, trained):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(8), requires_grad=trained)
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x * self.factor)


class Turned(nn.Module):
    """What is saved is not laid out like the activation's result."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(nn.functional.gelu(x).transpose(1, 2))


@pytest.mark.parametrize(
    ("module", "cheap"),
    [
        (nn.Sequential(nn.GELU("tanh"), nn.Linear(8, 8)), ["GeluBackward0"]),
        (nn.Sequential(nn.SiLU(), nn.Linear(8, 8)), ["SiluBackward0"]),
        (nn.Sequential(nn.LayerNorm(8, eps=0.5), nn.Linear(8, 8)), ["NativeLayerNormBackward0"]),
        (Product(True), ["MulBackward0"]),
        (Product(False), []),  # The product's operands are not all there.
        (nn.Sequential(nn.Tanh(), nn.Linear(8, 8)), []),
        (Turned(), []),
    ],
)
def test_what_is_cheap(module, cheap):
    torch.manual_seed(0)
    output, found = packed(module)
    assert found == cheap
    weights = list(module.parameters())
    gradients = torch.autograd.grad(output.square().sum(), [w for w in weights if w.requires_grad])
    torch.manual_seed(0)
    plain = module(torch.randn((2, 3, 8), requires_grad=True))
    expected = torch.autograd.grad(plain.square().sum(), [w for w in weights if w.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
