"""`ContrastiveTrainer`: sentence-transformers' trainer with a training step of its own."""

from __future__ import annotations

import contextlib
import functools
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate.utils import DistributedType
from datasets import Dataset, IterableDataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import ProgressCallback, Trainer

from syneg.encoders import bound_kernel_caches
from syneg.errors import InputError
from syneg.training import distributed
from syneg.training.arguments import ContrastiveArguments
from syneg.training.callbacks import EpochCallback, QuietProgress
from syneg.training.chunks import ChunkBudget, ChunkPlan
from syneg.training.collator import SyNegCollator
from syneg.training.data import check_dataset, check_scored
from syneg.training.guard import Above, GuardCallback
from syneg.training.instances import Instances
from syneg.training.objective import find_objective
from syneg.training.report import TrainingReport
from syneg.training.sampling import EndlessSteps, RowSampler, StreamedSteps, in_turn
from syneg.training.saving import TrainingCard, add_section, describe, find_checkpoint, without_weights
from syneg.training.step import Embedder
from syneg.training.texts import Padder, Texts


class NonFiniteLoss(InputError):
    """The loss became infinite or NaN; the message names the batch's rows."""


class ContrastiveTrainer(SentenceTransformerTrainer):
    """Fine-tunes a dense retriever on rows with negatives.

    Each step embeds every text of the batch once, in chunks of similar length; computes the loss of the
    whole batch, over all processes; and goes back through the chunks, by GradCache where their activations
    would not fit into memory. Steps that are accumulated make one larger batch, so in-batch negatives
    span all of it.

    Args:
        model: The SentenceTransformer.
        args: See `ContrastiveArguments`.
        train_dataset: Rows (see `SyNegCollator`), a `Dataset` or an `IterableDataset`.
        eval_dataset: Rows for the loss during training, or None.
        data_collator: A `SyNegCollator`; by default one that takes every negative of a row.
        **kwargs: Passed to `SentenceTransformerTrainer`: evaluator, callbacks, optimizers ...

    Raises:
        InputError: For a collator, data set or argument that cannot be used, and during training for a
            loss that is not finite.
    """

    training_args_class = ContrastiveArguments

    model: SentenceTransformer
    args: ContrastiveArguments
    data_collator: SyNegCollator

    def __init__(
        self,
        model: SentenceTransformer | None = None,
        args: ContrastiveArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        data_collator: SyNegCollator | None = None,
        **kwargs: Any,
    ) -> None:
        bound_kernel_caches()
        args = ContrastiveArguments("out") if args is None else args
        if args.output_dir is None:
            raise InputError("ContrastiveArguments needs output_dir, the folder to write.")
        if kwargs.get("loss") is not None:
            raise InputError("ContrastiveTrainer has its own loss; choose its terms in ContrastiveArguments.")
        if data_collator is None and model is not None:
            data_collator = SyNegCollator(model, seed=args.seed)
        if not isinstance(data_collator, SyNegCollator):
            raise InputError(f"data_collator is a {type(data_collator).__name__}; give a SyNegCollator.")
        evaluated = eval_dataset if isinstance(eval_dataset, dict) else {"eval_dataset": eval_dataset}
        train_dataset, *held = (_with_features(rows) for rows in (train_dataset, *evaluated.values()))
        evaluated = dict(zip(evaluated, held, strict=True))
        eval_dataset = evaluated if isinstance(eval_dataset, dict) else held[0]
        self._check(args, data_collator, train_dataset, evaluated)
        data_collator.num_epochs = max(int(args.num_train_epochs), 1)
        for rows in (train_dataset, *held):
            if args.mask_known_positives and isinstance(rows, Dataset):
                data_collator.learn_positives(rows)
        self.report = TrainingReport(str(data_collator.mixture), *_names(model, train_dataset))
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=data_collator,
            **kwargs,
        )
        if not args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(QuietProgress())
        self._epochs = EpochCallback(data_collator)
        self.add_callback(self._epochs)
        self.add_callback(GuardCallback(self))
        self._evaluated = torch.zeros(2, dtype=torch.float64)
        self._waiting: list[dict[str, Any]] = []
        self._budget = ChunkBudget(
            args.device,
            args.world_size,
            args.chunk_tokens,
            args.gradient_cache,
            not (args.gradient_checkpointing or args.torch_compile),
            args.memory_share,
        )
        self._padder: Padder | None = None
        self._unsharded: SentenceTransformer | None = None

    @staticmethod
    def _check(
        args: ContrastiveArguments, collator: SyNegCollator, train_dataset: Any, evaluated: dict[str, Any]
    ) -> None:
        in_batch = args.in_batch_negatives
        whole_step = args.train_batch_size * args.world_size if args.dataloader_drop_last else 1
        check_dataset(train_dataset, collator, in_batch, whole_step=whole_step)
        if args.distillation != "none":
            check_scored(train_dataset)
        for name, rows in evaluated.items():
            try:
                check_dataset(rows, collator, in_batch, name)
            except InputError as error:
                told = str(error)
                raise InputError(told if told.startswith(name) else f"{name}: {told}") from None
        if isinstance(train_dataset, IterableDataset) and args.max_steps <= 0:
            raise InputError(
                "train_dataset is a stream, whose length is not known: say how many steps to train with "
                "--max_steps."
            )

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Adds the callback that describes the training in the model's card."""
        self.report.processes = self.accelerator.num_processes
        callback = TrainingCard(default_args_dict)
        self.add_callback(callback)
        callback.on_init_end(self.args, self.state, self.control, model=self.model, trainer=self)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes the card; see `sentence_transformers`."""
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            add_section(str(self.args.output_dir), describe(self.report, self.args))

    def get_default_loss(self, model: SentenceTransformer) -> nn.Module:
        """Returns the objective that the arguments describe."""
        return find_objective(self.args.objective)(model, self.args)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Trains; see `transformers.Trainer.train`.

        Raises:
            InputError: Where there is no checkpoint to resume from, or the loss is not finite.
        """
        checkpoint = find_checkpoint(str(self.args.output_dir), resume_from_checkpoint)
        with self._attention(), warnings.catch_warnings():
            # sentence-transformers sets it, and torch says in every process that it has a new name.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")
            return super().train(checkpoint, *args, **kwargs)

    @contextlib.contextmanager
    def _attention(self) -> Iterator[None]:
        """Within it the model uses the attention that is fastest to train with on this device."""
        wanted = self.args.attention
        if wanted == "auto":
            # Measured on a CPU: in bf16 eager beats sdpa; in fp32 they are as fast, and sdpa keeps less.
            wanted = "eager" if self.args.device.type == "cpu" and self.args.bf16 else ""
        transformer: Any = getattr(self.accelerator.unwrap_model(self.model)[0], "model", None)
        before = getattr(getattr(transformer, "config", None), "_attn_implementation", None)
        if not wanted or before is None or before == wanted:
            yield
            return
        module: Any = self.accelerator.unwrap_model(self.model)[0]
        try:
            _set_attention(module, wanted)
        except (ValueError, ImportError) as error:
            raise InputError(f"--attention {wanted}: {str(error).splitlines()[0]}") from error
        try:
            yield
        finally:
            _set_attention(module, before)

    # Data ---------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Returns this process's batches.

        Not prepared by accelerate, whose sharding repeats or drops rows where the last batch is uneven.
        """
        dataset = self.train_dataset
        if dataset is None:
            raise InputError("ContrastiveTrainer needs a train_dataset to train.")
        size, drop_last = self.args.train_batch_size, self.args.dataloader_drop_last
        self._epochs.sampler, self._epochs.step = None, {}
        if isinstance(dataset, IterableDataset):
            steps = EndlessSteps(dataset, size, *self._place, drop_last)
            return self._loader(steps, batch_size=None, collate_fn=self.data_collator.collate_step)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sampler = RowSampler(len(dataset), size, seed, *self._place, drop_last)
        self._epochs.sampler = sampler
        return self._loader(dataset.with_format(None), batch_sampler=sampler, collate_fn=self.data_collator)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Returns this process's batches for evaluation: all rows in their order, drawn as in epoch 0.

        Args:
            eval_dataset: The rows, or the name of one of several evaluation sets; those given to the
                trainer where None.
        """
        if isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            return super().get_eval_dataloader()
        collate = functools.partial(self.data_collator, epoch=0)
        size = self.args.eval_batch_size
        if isinstance(dataset, IterableDataset):
            steps = StreamedSteps(dataset, size, *self._place, whole_batches=True)
            return self._loader(steps, batch_size=None, collate_fn=collate)
        batches = in_turn(len(dataset), size, *self._place)
        return self._loader(dataset.with_format(None), batch_sampler=batches, collate_fn=collate)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Returns this process's batches of a test set; see `get_eval_dataloader`."""
        return self.get_eval_dataloader(test_dataset)

    @property
    def _place(self) -> tuple[int, int]:
        return self.accelerator.process_index, self.accelerator.num_processes

    def _loader(self, dataset: Any, **options: Any) -> DataLoader:
        args = self.args
        return DataLoader(
            dataset,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
            # Starting workers draws a number; from the global generator it would shift dropout on resuming.
            generator=torch.Generator().manual_seed(args.seed),
            **options,
        )

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Evaluates; the loss is the mean over all rows, of all processes."""
        self._evaluated.zero_()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        sums = self._evaluated.to(self.args.device)
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(sums)
        loss, rows = sums.tolist()
        if rows:
            output.metrics[f"{metric_key_prefix}_loss"] = loss / rows
        return output

    # The step -----------------------------------------------------------------------------------------

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Does one step, or puts the batch aside until all batches of the step have come."""
        self._waiting.append(inputs)
        self._epochs.step = inputs
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        batches, self._waiting = self._waiting, []
        model.train()
        if hasattr(self.optimizer, "train") and callable(self.optimizer.train):
            self.optimizer.train()
        start = time.perf_counter()
        instances, texts = self._joined(batches)
        loss = self._forward_backward(model, texts, instances, batches)
        self.report.count(batches, texts, time.perf_counter() - start)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Returns the loss of a batch without a gradient; the trainer evaluates with it."""
        embeddings, instances = self._embed(model, inputs)
        with torch.no_grad():
            columns = instances.columns() if self.args.in_batch_negatives and len(instances) else None
            parts = [
                self.loss(embeddings, instances, columns, rows)[0].sum()
                for rows in self.loss.row_slices(instances, columns)
            ]
        total = torch.stack(parts).sum() if parts else embeddings.sum() * 0.0
        self._evaluated += torch.tensor([float(total), len(instances)], dtype=torch.float64)
        loss = total / max(len(instances), 1)
        return (loss, {}) if return_outputs else loss

    def count_above(self, rows: list[Any]) -> Above:
        """Counts what the model scores above the positives of some rows, drawn as in epoch 0."""
        batch = self.data_collator(rows, epoch=0)
        own, others = self.loss.above_positive(*self._embed(self.model_wrapped, batch))
        source = batch["instances"]["source"].to(own.device)
        chosen = {name: own[source == key] for key, name in batch["sources"].items()}
        return Above(
            len(rows),
            Counter({name: int((values >= 0).sum()) for name, values in chosen.items()}),
            Counter({name: int((values > 0).sum()) for name, values in chosen.items()}),
            int((others >= 0).sum()),
            int((others > 0).sum()),
        )

    def _embed(self, model: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Instances]:
        """Embeds a batch's texts without a gradient, shape (n, d)."""
        instances, texts = self._joined([batch])
        while True:
            plan = self._budget.plan(texts)
            try:
                parts, _ = self._embedder(model).without_graph(plan, plan.chunks, self._passes(plan))
                return plan.joined(parts), instances
            except torch.OutOfMemoryError as error:
                self._budget.halve(plan, error)

    def _joined(self, batches: list[dict[str, Any]]) -> tuple[Instances, Texts]:
        texts = Texts.join([Texts(**batch["texts"]) for batch in batches])
        device = self.args.device
        texts.tokens = {name: values.to(device, non_blocking=True) for name, values in texts.tokens.items()}
        instances = Instances.join([Instances(**batch["instances"]) for batch in batches])
        return instances.to(device), texts

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        # `_joined` moves what belongs on the device; lengths stay where they are read.
        return inputs

    def _forward_backward(
        self, model: nn.Module, texts: Texts, instances: Instances, batches: list[dict[str, Any]]
    ) -> Tensor:
        embedder = self._embedder(model)

        def loss(embeddings: Tensor) -> tuple[Tensor, Tensor]:
            return self._loss_and_gradient(embeddings, instances, batches)

        while True:
            plan = self._budget.plan(texts)
            passes = self._passes(plan)
            try:
                kept = self._budget.kept(plan, passes, embedder.bytes_per_token)
                with embedder.sparse_table():
                    return embedder.step(plan, loss, kept, passes)
            except torch.OutOfMemoryError as error:
                self._budget.halve(plan, error)
                model.zero_grad()

    def _loss_and_gradient(
        self, embeddings: Tensor, instances: Instances, batches: list[dict[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss, and its gradient by this process's embeddings.

        With in-batch negatives across processes each process computes the loss of the union, from all
        embeddings: the gradient by its own is then exact without a second exchange.
        """
        args, world = self.args, self.accelerator.num_processes
        shared = args.in_batch_negatives and args.cross_device_negatives and world > 1
        leaf = embeddings.requires_grad_()
        if shared:
            everything, union = distributed.gather(leaf, instances)
            total = len(union)
        else:
            everything, union = leaf, instances
            total = distributed.total(len(instances), args.device) if world > 1 else len(instances)
        columns = union.columns() if args.in_batch_negatives and len(union) else None
        value = torch.zeros((), device=leaf.device, dtype=leaf.dtype)
        rows_of = self.loss.row_slices(union, columns)
        for i, rows in enumerate(rows_of):
            each, record = self.loss(everything, union, columns, rows)
            part = each.sum() / max(total, 1)
            part.backward(retain_graph=i < len(rows_of) - 1)
            value += part.detach()
            self.report.record(record)
            # Else this slice's scores would be there until the next slice's are.
            del each, part
        gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
        if args.gradient_variance:
            self.report.variance(gradient, instances, total)
        if not shared:
            value *= world  # The trainer logs the mean over processes; this makes it the union's mean.
        if not torch.isfinite(value) or not torch.isfinite(gradient).all():
            self._stop_at(batches, value)
        # The processes' gradients are averaged, while theirs add up to the union's.
        return value, gradient * world

    def _stop_at(self, batches: list[dict[str, Any]], value: Tensor) -> None:
        rows = [row for batch in batches for row in batch["row_ids"]]
        shown = ", ".join(rows[:64]) + (f" and {len(rows) - 64} more" if len(rows) > 64 else "")
        raise NonFiniteLoss(
            f"step {self.state.global_step + 1}: the loss or its gradient is not finite ({float(value)}). "
            f"Lower the learning rate, raise the temperature or train in bf16 or fp32. Rows: {shown}."
        )

    def _embedder(self, model: nn.Module) -> Embedder:
        plain = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if self._padder is None:
            self._padder = Padder(plain)
        return Embedder(
            model,
            plain,
            self._padder,
            # Between processes sparse gradients are not exchanged everywhere, nor can they be compiled.
            self.args.device.type == "cpu"
            and self.accelerator.num_processes == 1
            and not self.args.torch_compile,
            self.accelerator.autocast,
            self._no_sync(model),
            self.accelerator.backward,
        )

    def _no_sync(self, model: nn.Module) -> Callable[[], AbstractContextManager[Any]]:
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            return self._not_at_boundary
        return lambda: self.accelerator.no_sync(model)

    @contextlib.contextmanager
    def _not_at_boundary(self) -> Any:
        # DeepSpeed exchanges and steps at the boundary that accelerate reads from here.
        state = self.accelerator.gradient_state
        state._set_sync_gradients(False)
        try:
            yield
        finally:
            state._set_sync_gradients(True)

    @property
    def _every_forward_is_an_exchange(self) -> bool:
        kinds = (DistributedType.FSDP, DistributedType.DEEPSPEED)
        return self.accelerator.distributed_type in kinds and self.accelerator.num_processes > 1

    def _passes(self, plan: ChunkPlan) -> int:
        """How many forwards every process must do where each is an exchange between them, else 0."""
        if not self._every_forward_is_an_exchange:
            return 0
        return distributed.largest(len(plan.chunks), self.args.device)

    # Saving -------------------------------------------------------------------------------------------

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_fsdp_enabled and self._unsharded is None:
            self._unsharded = without_weights(self.model)
        return super()._prepare_for_training(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Saves the model; under FSDP from the whole weights, which only the state has."""
        if not self.is_fsdp_enabled or self._unsharded is None or not state_dict:
            super()._save(output_dir, state_dict)
        else:
            sharded, self.model = self.model, self._unsharded
            try:
                self.model.load_state_dict(state_dict, assign=True)
                super()._save(output_dir, state_dict)
            finally:
                self.model = sharded
        add_section(output_dir or str(self.args.output_dir), describe(self.report, self.args))

    def _load_from_checkpoint(self, checkpoint_path: str, model: nn.Module | None = None) -> None:
        # sentence-transformers' takes no model, which transformers passes under FSDP.
        if self.is_fsdp_enabled and model is not None:
            Trainer._load_from_checkpoint(self, checkpoint_path, model)
        else:
            super()._load_from_checkpoint(checkpoint_path)

    # What is told -------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds what was recorded since the last time to a training log."""
        if "loss" in logs:
            logs = logs | self.report.take(self.accelerator)
        super().log(logs, start_time)


def _set_attention(module: Any, implementation: str) -> None:
    """Sets the attention of a model's transformer."""
    module.model.set_attn_implementation(implementation)
    if hasattr(module, "unpad_inputs"):
        # Whether texts go without padding was decided by the attention that it was loaded with; setting it
        # decides again. Texts without padding would see each other in any attention but flash attention.
        module.unpad_inputs = module.unpad_inputs


def _names(model: SentenceTransformer | None, dataset: Any) -> tuple[str, str]:
    """What the card can call the model and the data set, where they tell."""
    card = getattr(model, "model_card_data", None)
    info = getattr(dataset, "info", None)
    return getattr(card, "base_model", None) or "", getattr(info, "dataset_name", None) or ""


def _with_features(rows: Any) -> Any:
    """Gives a stream that does not know its columns yet those of its first rows."""
    if isinstance(rows, IterableDataset) and rows.column_names is None:
        return rows._resolve_features()
    return rows
