"""Trains a tiny model as one of several processes, or alone, and writes every step's gradients.

Run by test_distributed.py: ``python worker.py FOLDER SCENARIOS``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

SCENARIOS = {
    # rows of the data set, rows a step over all processes, and arguments of the trainer
    "direct": (16, 8, {"gradient_cache": "never"}),
    "cached": (16, 8, {"gradient_cache": "always"}),
    "selective": (16, 8, {"gradient_cache": "selective"}),
    "mixed": (16, 8, {}),  # Some chunks kept selectively, the others by GradCache.
    "direct_own": (16, 8, {"gradient_cache": "never", "in_batch_negatives": False}),
    "cached_own": (16, 8, {"gradient_cache": "always", "in_batch_negatives": False}),
    "uneven": (13, 8, {"gradient_cache": "never"}),
    "uneven_cached_own": (13, 8, {"gradient_cache": "always", "in_batch_negatives": False}),
    "idle": (9, 8, {"gradient_cache": "never"}),
    "idle_cached": (9, 8, {"gradient_cache": "always"}),
    "accumulated": (20, 8, {"gradient_cache": "never", "gradient_accumulation_steps": 2}),
    "accumulated_cached": (20, 8, {"gradient_cache": "always", "gradient_accumulation_steps": 2}),
    "clipped": (16, 8, {"max_grad_norm": 0.05}),
    "everything": (
        16,
        8,
        {
            "symmetric": True,
            "hardness": 2.0,
            "source_weights": {"synthetic": 0.5},
            "source_entropy_weight": 0.05,
            "causalneg_weight": 0.05,
            "matryoshka_dims": [8],
            "distillation": "kl",
        },
    ),
    # The last one, since it changes what the process takes itself for.
    "sharded": (
        16,
        8,
        {
            "gradient_cache": "always",
            "fsdp": True,
            "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": ["BertLayer"]},
        },
    ),
}


def train(name, model_path, folder, world, output=None, **options):
    """Trains one scenario and returns the trainer, the losses and the gradients after clipping."""
    import torch
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType
    from sentence_transformers import SentenceTransformer
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    from transformers import TrainerCallback

    from syneg.training.arguments import ContrastiveArguments
    from syneg.training.chunks import Kept
    from syneg.training.collator import SyNegCollator
    from syneg.training.trainer import ContrastiveTrainer
    from tests.training.conftest import make_dataset

    rows, step_rows, more = SCENARIOS[name]
    more = {"max_grad_norm": 0.0, **more, **options}
    if world == 1:
        more = {key: value for key, value in more.items() if not key.startswith("fsdp")}
    AcceleratorState._reset_state(reset_partial_state=False)
    dataset = make_dataset(rows, shared_queries=True, teacher=True)
    # In float64, so that what differs by more than rounding shows.
    model = SentenceTransformer(model_path, device="cpu").double()
    accumulated = more.get("gradient_accumulation_steps", 1)
    args = ContrastiveArguments(
        str(output or folder / "out"),
        per_device_train_batch_size=step_rows // world // accumulated,
        num_train_epochs=2,
        optim="sgd",
        learning_rate=0.05,
        warmup_steps=0,
        chunk_tokens=100,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **more,
    )
    if args.fsdp:
        # accelerate 1.15 takes FSDP for processes on GPUs only; its FSDP2 code itself runs on CPUs as well.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    collator = SyNegCollator(model, {"synthetic": 1, "dense": 2})
    exchanged: list[int] = []
    gradients: list[dict[str, torch.Tensor]] = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            wrapped = trainer.model_wrapped
            if hasattr(wrapped, "register_comm_hook"):
                wrapped.register_comm_hook(None, counted)

        def on_step_begin(self, args, state, control, **kwargs):
            exchanged.append(0)

        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            named = trainer.accelerator.unwrap_model(trainer.model).named_parameters()
            gradients.append({n: _whole(p.grad).clone() for n, p in named if p.grad is not None})

    def counted(state, bucket):
        exchanged[-1] += bucket.buffer().numel()
        return allreduce_hook(None, bucket)

    trainer = ContrastiveTrainer(
        model=model, args=args, train_dataset=dataset, data_collator=collator, callbacks=[Watch()]
    )
    if name == "mixed":
        trainer._budget.kept = lambda plan, *_: Kept(len(plan.chunks) // 2, 1)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return trainer, losses, gradients, exchanged


def eval_losses(trainer):
    """Evaluates eleven rows as a data set and as a stream: three batches, the last one short."""
    from tests.training.conftest import make_dataset

    rows = make_dataset(11, shared_queries=True)
    trainer.args.per_device_eval_batch_size = 4
    streams = rows.to_iterable_dataset(num_shards=3), rows.to_iterable_dataset()
    return [trainer.evaluate(each)["eval_loss"] for each in (rows, *streams)]


def _whole(gradient):
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


def main() -> None:
    """Runs the scenarios that the command line names and writes what came out."""
    import torch
    import torch.distributed as dist

    folder, names = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    for name in names:
        world = dist.get_world_size() if dist.is_initialized() else int(sys.argv[3])
        trainer, losses, gradients, exchanged = train(name, sys.argv[4], folder, world)
        if trainer.is_fsdp_enabled:
            trainer.save_model(str(folder / name))
        if name == "direct":
            found = eval_losses(trainer)
            if trainer.accelerator.is_main_process:
                torch.save(found, folder / "eval.pt")
        if trainer.accelerator.is_main_process:
            trainable = sum(g.numel() for g in gradients[0].values())
            torch.save((losses, gradients, exchanged, trainable), folder / f"{name}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
