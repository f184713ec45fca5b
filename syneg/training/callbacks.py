"""Callbacks of the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import ProgressCallback, TrainerCallback
from transformers.trainer_callback import DefaultFlowCallback

if TYPE_CHECKING:
    from syneg.training.collator import SyNegCollator
    from syneg.training.sampling import RowSampler


class EpochCallback(TrainerCallback):
    """Tells the collator and the sampler the epoch, and ends an epoch where a stream's pass ends.

    Attributes:
        sampler: The order of the rows, of a data set that is no stream.
        step: The last batch of a stream, which knows its epoch: the trainer cannot know how long a pass is.
    """

    def __init__(self, collator: SyNegCollator) -> None:
        self.collator = collator
        self.sampler: RowSampler | None = None
        self.step: dict[str, Any] = {}

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rounds down, so that an epoch that is resumed in its middle is the same epoch."""
        epoch = int((state.epoch or 0) + 1e-6)
        self.collator.set_epoch(epoch)
        if self.sampler is not None:
            self.sampler.set_epoch(epoch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """At the end of a pass over a stream, does what is to be done at the end of an epoch."""
        if "epoch" not in self.step:
            return
        ended = self.step["ends_epoch"]
        state.epoch = float(self.step["epoch"] + ended)
        if ended and state.global_step < state.max_steps:
            DefaultFlowCallback().on_epoch_end(args, state, control)


class QuietProgress(ProgressCallback):
    """A progress bar that shows the loss, instead of a bar that log lines tear."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Shows the loss behind the bar; every figure is in `trainer.state.log_history`."""
        if state.is_world_process_zero and self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4f}")
