"""Prompting strategies, one file each, chosen by name."""

from __future__ import annotations

from syneg.writing.counterfactual import CounterfactualStrategy
from syneg.writing.plain import PlainStrategy
from syneg.writing.self_reflection import SynegStrategy
from syneg.writing.strategy import (
    Example,
    PromptOptions,
    Strategy,
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
    "find_strategy",
    "make_strategy",
    "register",
]
