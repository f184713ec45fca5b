"""Activations that are had again for next to nothing are not kept (selective activation recomputation).

Korthikanti et al. 2022 (arXiv 2205.05198) keep what matrix products give and run the rest of a layer again.
Here nothing is run twice but the operation that gave the tensor in question: where a later operation would
save the result of an activation function, a product of elements, a layer norm, or a cast of one of these, it
saves how to have it from what that operation saved itself. The result is the same to the bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


def _multiplied(node: Any) -> Tensor:
    return node._saved_self * node._saved_other


def _normalized(node: Any) -> Tensor:
    return functional.layer_norm(
        node._saved_input,
        node._saved_normalized_shape,
        node._saved_weight,
        node._saved_bias,
        node.metadata["eps"],
    )


_CHEAP: dict[str, Callable[[Any], Tensor]] = {
    "GeluBackward0": lambda node: functional.gelu(node._saved_self, approximate=node._saved_approximate),
    "SiluBackward0": lambda node: functional.silu(node._saved_self),
    "MulBackward0": _multiplied,
    "NativeLayerNormBackward0": _normalized,
}
"""Operation in the graph -> its result, computed again."""


def _is_cheap(node: Any) -> bool:
    if node is None or (name := node.name()) not in _CHEAP:
        return False
    if name == "MulBackward0":
        # A factor is saved where the other one has a gradient.
        return all(factor is not None for factor, _ in node.next_functions)
    return name != "NativeLayerNormBackward0" or "eps" in node.metadata


class Recipe(NamedTuple):
    """How a tensor is had again.

    Attributes:
        node: The operation in the graph that gave it.
        dtype: What its result is cast to.
        shape: The tensor's shape.
    """

    node: Any
    dtype: torch.dtype
    shape: torch.Size


def recipe_of(tensor: Tensor) -> Recipe | None:
    """Returns how a tensor is had again; None where that is not known or not cheap."""
    whole = tensor
    if tensor._base is not None:
        whole = tensor._base
        laid_alike = whole.is_contiguous() and tensor.is_contiguous()
        if not laid_alike or whole.numel() != tensor.numel():
            return None
    node: Any = whole.grad_fn
    if node is not None and node.name() == "ToCopyBackward0":
        node, output = node.next_functions[0]
        if output:
            return None
    return Recipe(node, tensor.dtype, tensor.shape) if _is_cheap(node) else None


@contextlib.contextmanager
def marked(model: nn.Module) -> Iterator[None]:
    """Within it layer norms write into the graph what it lacks for computing them again."""

    def mark(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.grad_fn is not None and output.grad_fn.name() == "NativeLayerNormBackward0":
            output.grad_fn.metadata["eps"] = module.eps

    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    handles = [norm.register_forward_hook(mark) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def keeping_less(model: nn.Module) -> Iterator[None]:
    """Within it a forward's graph keeps recipes in the place of tensors that are cheap to have again.

    The way back may be outside.
    """
    # Several operations save the same tensor, one after the other on the way back. Known by its operation's
    # number: the operation itself would hold these hooks, and they it.
    latest: tuple[int, torch.dtype, Tensor] | None = None

    def pack(tensor: Tensor) -> Tensor | Recipe:
        # Detached, since an operation that saves its own result would hold itself; for good, where nothing
        # goes back there.
        return recipe_of(tensor) or (tensor if tensor.is_leaf else tensor.detach())

    def unpack(saved: Tensor | Recipe) -> Tensor:
        nonlocal latest
        if isinstance(saved, Tensor):
            return saved
        node, dtype, shape = saved
        number = node._sequence_nr()
        if latest is None or latest[:2] != (number, dtype):
            latest = (number, dtype, _CHEAP[node.name()](node).to(dtype))
        return latest[2].view(shape)

    with marked(model), torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
