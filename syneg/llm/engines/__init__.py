"""Engines: a stream of requests in, a stream of completions out, in any order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from syneg.errors import InputError, unknown
from syneg.llm.requests import Engine
from syneg.resources import class_from_file, is_class_spec

if TYPE_CHECKING:
    from syneg.llm.arguments import LLMArguments
    from syneg.llm.recordings import Recordings

ENGINES = ("vllm", "openai", "ray", "recorded")


def check_engine(name: str) -> None:
    """Checks the engine's name.

    Raises:
        InputError: For a name that is no engine's; names the nearest.
    """
    if is_class_spec(name):
        _own_engine(name)
    elif name not in ENGINES:
        raise InputError(
            f"{unknown('engine', name, ENGINES)} One of your own is FILE.py:CLASS, a "
            "syneg.llm.requests.Engine with generate(requests)."
        )


def check_ready(args: LLMArguments) -> None:
    """Checks, before anything takes long, that an engine can be started: its library, servers and LLM.

    Nothing is started, and no server is asked: it may come up while mining goes on.

    Raises:
        InputError: For what is missing or unknown; says how to get it.
    """
    check_engine(args.engine)
    if args.engine == "vllm":
        from syneg.llm.engines.vllm_engine import check_options, check_vllm

        check_vllm()
        check_options(args.engine_options)  # type: ignore[arg-type]
    elif args.engine == "openai":
        from syneg.llm.engines.openai_server import check_openai

        check_openai(args.base_urls or [], args.engine_options)  # type: ignore[arg-type]
    elif args.engine == "ray":
        from syneg.llm.engines.ray_cluster import check_ray

        check_ray()
    if args.engine in ("vllm", "ray"):
        _check_llm(args)


def _check_llm(args: LLMArguments) -> None:
    """Checks that the LLM is a folder here, or is on the Hub or in its cache, and can chat."""
    assert isinstance(args.engine_options, dict)
    options: dict[str, Any] = {**args.engine_options, **args.engine_options.get("engine_kwargs", {})}
    if args.engine == "ray" and Path(args.llm).is_absolute() and not Path(args.llm).is_dir():
        return  # The nodes of the cluster may have it.
    if Path(args.llm).is_file() or {"tokenizer_mode", "trust_remote_code", "load_format"} & options.keys():
        return  # What only the engine can tell: a GGUF file, a tokenizer that transformers does not have.
    from transformers import AutoTokenizer

    from syneg.llm.engines.vllm_engine import check_chat_template

    spec = str(options.get("tokenizer", args.llm))
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec)
    except (OSError, ValueError) as error:
        from huggingface_hub.constants import HF_HUB_OFFLINE

        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        offline = " HF_HUB_OFFLINE is set, so the Hub is not asked." if HF_HUB_OFFLINE else ""
        raise InputError(
            f"--llm {args.llm}: it is neither a model's folder here nor to be had from the Hub ({reason})."
            f"{offline}"
        ) from error
    check_chat_template(tokenizer)


def _own_engine(spec: str) -> type[Engine]:
    return class_from_file(spec, Engine, "engine", ("generate",), texts=())  # type: ignore[type-abstract]


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
    if is_class_spec(args.engine):
        return _own_engine(args.engine)(args.llm, args.engine_options)
    if args.engine == "openai":
        from syneg.llm.engines.openai_server import OpenAIEngine

        return OpenAIEngine(args.llm, args.base_urls or [], args.concurrency, args.engine_options)
    if args.engine == "ray":
        from syneg.llm.engines.ray_cluster import RayEngine

        return RayEngine(args.llm, args.engine_options)
    from syneg.llm.engines.vllm_engine import VllmEngine

    return VllmEngine(args.llm, args.engine_options)
