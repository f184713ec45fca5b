"""Callbacks of the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import ProgressCallback, TrainerCallback

if TYPE_CHECKING:
    from syneg.training.collator import SyNegCollator


class SetEpoch(TrainerCallback):
    """Tells the collator the epoch, which draws depend on."""

    def __init__(self, collator: SyNegCollator) -> None:
        self.collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rounds down, so that an epoch that is resumed in its middle is the same epoch."""
        self.collator.set_epoch(int((state.epoch or 0) + 1e-6))


class QuietProgress(ProgressCallback):
    """A progress bar that shows the loss, instead of a bar that log lines tear."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Shows the loss behind the bar; every figure is in `trainer.state.log_history`."""
        if state.is_world_process_zero and self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4f}")
