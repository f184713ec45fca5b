"""Activations that are computed again."""

import contextlib
import gc

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModel, BertConfig, GPTNeoXConfig, ModernBertConfig, Qwen3Config

from syneg.training.recompute import Recipe, keeping_less, marked, recipe_of

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
CONFIGS = {
    "bert": BertConfig(**SIZES, intermediate_size=64),
    "neox": GPTNeoXConfig(**SIZES, intermediate_size=64, max_position_embeddings=32),
    "modernbert": ModernBertConfig(**SIZES, **TOKENS, intermediate_size=64),
    "qwen3": Qwen3Config(**SIZES, intermediate_size=64, num_key_value_heads=1, head_dim=16),
}


def make_model(name):
    return AutoModel.from_config(CONFIGS[name], attn_implementation="eager").train()


def saved(model, **inputs):
    """What a forward's graph saves: what is computed again, and the bytes of all and of the rest."""
    recipes, everything, dear = [], {}, {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            everything[storage.data_ptr()] = storage.nbytes()
            if recipe := recipe_of(tensor):
                recipes.append(recipe.node.name())
            else:
                dear[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with marked(model), saved_tensors_hooks(count, lambda tensor: tensor):
        output = model(**inputs)
        return output, recipes, sum(everything.values()), sum(dear.values())


def gradients_of(model, again, **inputs):
    model.zero_grad()
    torch.manual_seed(1)  # Dropout is on.
    with keeping_less(model) if again else contextlib.nullcontext():
        output = model(**inputs)
    getattr(output, "last_hidden_state", output).float().square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_the_same(model, **inputs):
    expected, found = (gradients_of(model, again, **inputs) for again in (False, True))
    assert found.keys() == expected.keys() and expected
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_are_equal_to_the_bit(name, bf16):
    torch.manual_seed(0)
    model = make_model(name)
    inputs = {"input_ids": torch.randint(3, 50, (4, 12)), "attention_mask": torch.ones(4, 12).long()}
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        assert_the_same(model, **inputs)
        _, recipes, everything, dear = saved(model, **inputs)
    assert recipes and dear < 0.85 * everything


class Product(nn.Module):
    """Multiplies by what has a gradient, or by what has none."""

    def __init__(self, trained):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(8), requires_grad=trained)
        self.linear = nn.Linear(8, 8)

    def forward(self, input):
        return self.linear(input * self.factor)


class Turned(nn.Module):
    """What is saved is not laid out like the activation's result."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, input):
        return self.linear(nn.functional.gelu(input).transpose(1, 2))


@pytest.mark.parametrize(
    ("module", "cheap"),
    [
        (nn.Sequential(nn.GELU("tanh"), nn.Linear(8, 8)), ["GeluBackward0"]),
        (nn.Sequential(nn.SiLU(), nn.Linear(8, 8)), ["SiluBackward0"]),
        (nn.Sequential(nn.LayerNorm(8, eps=0.5), nn.Linear(8, 8)), ["NativeLayerNormBackward0"]),
        (nn.Sequential(nn.LayerNorm(8, bias=False), nn.Linear(8, 8)), ["NativeLayerNormBackward0"]),
        (Product(True), ["MulBackward0"]),
        (Product(False), []),  # The product's operands are not all there.
        (nn.Sequential(nn.Tanh(), nn.Linear(8, 8)), []),
        (Turned(), []),
    ],
)
def test_what_is_cheap(module, cheap):
    inputs = {"input": torch.randn(2, 3, 8, requires_grad=True)}
    assert saved(module, **inputs)[1] == cheap
    assert_the_same(module, **inputs)


@pytest.mark.parametrize("back", [True, False])
def test_nothing_stays_in_memory(back):
    """The pooler's graph has an end where nothing goes back."""
    model = make_model("bert")
    for _ in range(2):
        with keeping_less(model):
            output = model(input_ids=torch.randint(3, 50, (4, 12))).last_hidden_state
        assert any(isinstance(thing, Recipe) for thing in gc.get_objects())
        if back:
            output.sum().backward()
        del output
        gc.collect()
        assert not any(isinstance(thing, Recipe) for thing in gc.get_objects())
