"""The paper's ablation: its prompt without attributes and without reflection."""

from __future__ import annotations

from dataclasses import replace

from syneg.writing.self_reflection import SynegStrategy
from syneg.writing.strategy import PromptOptions, register


@register
class PlainStrategy(SynegStrategy):
    """Task, hard-negative and format definitions only; the document is written straight away."""

    name = "plain"
    version = "1"

    def __init__(self, options: PromptOptions) -> None:
        super().__init__(replace(options, attributes=False, reflection=False))
