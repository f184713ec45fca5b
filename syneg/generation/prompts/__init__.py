"""Prompting strategies, one file each, chosen by name."""

from __future__ import annotations

from syneg.generation.prompts.base import Example, PromptOptions, Strategy, make_strategy, register
from syneg.generation.prompts.syneg import SynegStrategy

__all__ = ["Example", "PromptOptions", "Strategy", "SynegStrategy", "make_strategy", "register"]
