"""syneg: hard negatives written by a local LLM, mixed with mined ones, to train dense retrievers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syneg.api import ask, build, gate, mine, write_negatives
    from syneg.errors import InputError
    from syneg.evaluation.evaluate import evaluate
    from syneg.hub.publish import push_dataset, push_model
    from syneg.sources import Source, load_source
    from syneg.training.arguments import ContrastiveArguments
    from syneg.training.collator import SyNegCollator
    from syneg.training.mixing import Mixture
    from syneg.training.trainer import ContrastiveTrainer
    from syneg.writing.query_strategy import QueryStrategy
    from syneg.writing.strategies import Strategy

__version__ = "0.1.0"
__all__ = [
    "ContrastiveArguments",
    "ContrastiveTrainer",
    "InputError",
    "Mixture",
    "QueryStrategy",
    "Source",
    "Strategy",
    "SyNegCollator",
    "ask",
    "build",
    "evaluate",
    "gate",
    "load_source",
    "mine",
    "push_dataset",
    "push_model",
    "write_negatives",
]

# Imported when first used: torch and datasets cost seconds, and `syneg --help` needs neither.
_MODULES = {
    "ContrastiveArguments": "syneg.training.arguments",
    "ContrastiveTrainer": "syneg.training.trainer",
    "InputError": "syneg.errors",
    "Mixture": "syneg.training.mixing",
    "QueryStrategy": "syneg.writing.query_strategy",
    "Source": "syneg.sources",
    "Strategy": "syneg.writing.strategies",
    "SyNegCollator": "syneg.training.collator",
    "ask": "syneg.api",
    "build": "syneg.api",
    "evaluate": "syneg.evaluation.evaluate",
    "gate": "syneg.api",
    "load_source": "syneg.sources",
    "mine": "syneg.api",
    "push_dataset": "syneg.hub.publish",
    "push_model": "syneg.hub.publish",
    "write_negatives": "syneg.api",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'syneg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
