"""Exchanges between processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from syneg.training.instances import Instances


def gather(embeddings: Tensor, instances: Instances) -> tuple[Tensor, Instances]:
    """Returns the embeddings and instances of all processes, in the processes' order.

    Three exchanges: sizes, embeddings, and everything else packed into integers.

    Args:
        embeddings: This process's, shape (n, d). The gradient flows to them, and to none of the others'.
        instances: This process's.

    Returns:
        The union's embeddings, shape (sum of n, d), and its instances.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    device = embeddings.device
    own_sizes = torch.tensor(instances.sizes(), device=device)
    sizes = [torch.empty_like(own_sizes) for _ in range(world)]
    dist.all_gather(sizes, own_sizes)
    shapes = [size.tolist() for size in sizes]
    most = max(shape[3] for shape in shapes)
    vectors = torch.zeros(most, embeddings.shape[1], device=device, dtype=embeddings.dtype)
    vectors[: len(embeddings)] = embeddings.detach()
    everyone = [torch.empty_like(vectors) for _ in range(world)]
    dist.all_gather(everyone, vectors)
    longest = max(Instances.packed_size(shape) for shape in shapes)
    packed = torch.zeros(longest, dtype=torch.int64, device=device)
    own_packed = instances.pack()
    packed[: len(own_packed)] = own_packed
    packs = [torch.empty_like(packed) for _ in range(world)]
    dist.all_gather(packs, packed)
    parts = [part[: shape[3]] for part, shape in zip(everyone, shapes, strict=True)]
    parts[rank] = embeddings
    union = [Instances.unpack(pack, shape) for pack, shape in zip(packs, shapes, strict=True)]
    return torch.cat(parts), Instances.join(union)


def total(number: int, device: torch.device) -> int:
    """Returns the sum of a number over the processes."""
    return _reduced(number, device, dist.ReduceOp.SUM)


def largest(number: int, device: torch.device) -> int:
    """Returns the largest of a number over the processes."""
    return _reduced(number, device, dist.ReduceOp.MAX)


def _reduced(number: int, device: torch.device, operation: dist.ReduceOp.RedOpType) -> int:
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, op=operation)
    return int(value)
