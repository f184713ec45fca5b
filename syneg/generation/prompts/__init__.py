"""Prompting strategies, one file each, chosen by name."""

from __future__ import annotations

from syneg.generation.prompts.base import (
    Example,
    PromptOptions,
    Strategy,
    find_strategy,
    make_strategy,
    register,
)
from syneg.generation.prompts.counterfactual import CounterfactualStrategy
from syneg.generation.prompts.plain import PlainStrategy
from syneg.generation.prompts.syneg import SynegStrategy

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
