"""Engines: a stream of requests in, a stream of completions out, in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from syneg.errors import unknown
from syneg.llm.requests import Engine

if TYPE_CHECKING:
    from syneg.llm.arguments import LLMArguments
    from syneg.llm.recordings import Recordings

ENGINES = ("vllm", "openai", "ray", "recorded")


def check_engine(name: str) -> None:
    """Checks the engine's name.

    Raises:
        InputError: For a name that is no engine's; names the nearest.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)


def make_engine(args: LLMArguments, recordings: Recordings | None = None) -> Engine:
    """Starts the engine that `args` names.

    Args:
        args: Which engine, which LLM, and the engine's options.
        recordings: What the engine `recorded` replays.

    Raises:
        InputError: For an unknown engine, or one whose package is not installed.
    """
    check_engine(args.engine)
    if args.engine == "recorded":
        from syneg.llm.engines.recorded import RecordedEngine

        assert recordings is not None
        return RecordedEngine(recordings, args.on_miss)
    assert isinstance(args.engine_options, dict)
    if args.engine == "openai":
        from syneg.llm.engines.openai_server import OpenAIEngine

        return OpenAIEngine(args.llm, args.base_urls or [], args.concurrency, args.engine_options)
    if args.engine == "ray":
        from syneg.llm.engines.ray_cluster import RayEngine

        return RayEngine(args.llm, args.engine_options)
    from syneg.llm.engines.vllm_engine import VllmEngine

    return VllmEngine(args.llm, args.engine_options)
