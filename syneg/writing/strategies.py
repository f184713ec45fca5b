"""Prompting strategies, chosen by name."""

from __future__ import annotations

from syneg.writing.counterfactual import CounterfactualStrategy
from syneg.writing.self_reflection import PlainStrategy, SynegStrategy
from syneg.writing.strategy import (
    Example,
    PromptOptions,
    Strategy,
    Written,
    find_strategy,
    make_strategy,
    register,
)

__all__ = [
    "CounterfactualStrategy",
    "Example",
    "PlainStrategy",
    "PromptOptions",
    "Strategy",
    "SynegStrategy",
    "Written",
    "find_strategy",
    "make_strategy",
    "register",
]
