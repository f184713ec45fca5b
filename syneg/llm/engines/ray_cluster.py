"""The engine `ray`: Ray Data's vLLM processor, for a cluster."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from syneg.errors import InputError, nearest
from syneg.llm.parsing import PROMPT_TOO_LONG
from syneg.llm.requests import Completion, Request

_TOO_LONG = ("context length", "max_model_len", "longer than the maximum", "max model len")


_LIGHT = {"num_cpus": 0.1}
"""For all but the LLM. A whole CPU each, Ray's default, leaves none for the LLM on a small machine,
and it waits for ever."""


def check_ray() -> None:
    """Checks that Ray can be imported.

    Raises:
        InputError: Says how to get it.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("--engine ray: Ray is not installed. pip install 'syneg[ray]'.")


class RayEngine:
    """Runs vLLM on a Ray cluster, or on a local Ray where there is no cluster.

    Ray Data works on a data set at a time and starts its replicas of the LLM for each, so requests
    are handed over in large portions, and completions are taken as the replicas finish blocks.

    Args:
        llm: A Hub id or a folder that every node can read.
        options: Fields of Ray's `vLLMEngineProcessorConfig`: `engine_kwargs` (vLLM's own),
            `concurrency` (replicas), `batch_size`, `placement_group_config` and so on; and
            `portion`, how many requests are handed over at once (100,000).

    Raises:
        InputError: Where Ray is not installed or does not know an option.
    """

    def __init__(self, llm: str, options: Mapping[str, Any] | None = None) -> None:
        check_ray()
        from ray.data.llm import vLLMEngineProcessorConfig

        options = dict(options or {})
        self.llm = llm
        self._portion = int(options.pop("portion", 100_000))
        known = vLLMEngineProcessorConfig.model_fields
        for name in options:
            if name not in known:
                raise InputError(
                    f"--engine_options: the engine ray has no option {name!r}.{nearest(name, known)} "
                    "What is meant for vLLM goes into engine_kwargs."
                )
        engine_kwargs = {"enable_prefix_caching": True} | dict(options.pop("engine_kwargs", {}))
        self._batch_size = int(options.setdefault("batch_size", 64))
        options.setdefault("should_continue_on_error", True)
        for stage in ("chat_template_stage", "tokenize_stage", "detokenize_stage"):
            options.setdefault(stage, {"enabled": True, **_LIGHT})
        self._config = vLLMEngineProcessorConfig(model_source=llm, engine_kwargs=engine_kwargs, **options)
        self._started = False

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yields completions as blocks of them are finished.

        Raises:
            InputError: Where a replica reports an error other than a prompt that is too long.
        """
        source = iter(requests)
        while portion := list(itertools.islice(source, self._portion)):
            yield from self._complete(portion)

    def close(self) -> None:
        """Leaves the cluster; ends the local Ray if this engine started it."""
        import ray

        if self._started and ray.is_initialized():
            ray.shutdown()
            self._started = False

    def _complete(self, portion: list[Request]) -> Iterator[Completion]:
        import ray
        from ray.data.llm import build_processor

        if not ray.is_initialized():
            ray.init()
            self._started = True
        options = portion[0].sampling.get("chat_template_options") or {}
        processor = build_processor(
            self._config,
            preprocess=_to_ray,
            postprocess=_from_ray,
            preprocess_map_kwargs=_LIGHT,
            postprocess_map_kwargs=_LIGHT,
            builder_kwargs={"chat_template_kwargs": dict(options)},
        )
        limits = {request.key: request.sampling["max_tokens"] for request in portion}
        blocks = max(1, len(portion) // self._batch_size)
        dataset = ray.data.from_items([_row(request) for request in portion], override_num_blocks=blocks)
        for row in processor(dataset).iter_rows():
            yield self._completion(row, limits[row["key"]])

    def _completion(self, row: Mapping[str, Any], limit: int) -> Completion:
        error = row.get("__inference_error__") or ""
        if error:
            if any(words in str(error) for words in _TOO_LONG):
                return Completion(row["key"], "", PROMPT_TOO_LONG, generator=self.llm)
            raise InputError(f"--engine ray: a replica reports: {' '.join(str(error).split())[:500]}")
        # Ray does not hand on why a completion ended; it was cut off if it used all it might.
        cut_off = row["completion_tokens"] >= limit
        return Completion(
            key=row["key"],
            text=row["text"],
            finish_reason="length" if cut_off else "stop",
            prompt_tokens=int(row["prompt_tokens"]),
            completion_tokens=int(row["completion_tokens"]),
            generator=self.llm,
        )


def _row(request: Request) -> dict[str, Any]:
    """Returns a request as a row of strings, so that all rows have one Arrow schema."""
    sampling = {k: v for k, v in request.sampling.items() if k != "chat_template_options"}
    sampling["structured_outputs"] = {"json": json.dumps(dict(request.schema))}
    return {
        "key": request.key,
        "request_messages": json.dumps([dict(message) for message in request.messages]),
        "request_sampling": json.dumps(sampling),
    }


def _to_ray(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": row["key"],
        "messages": json.loads(row["request_messages"]),
        "sampling_params": json.loads(row["request_sampling"]),
    }


def _from_ray(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "key": row["key"],
        "text": row["generated_text"],
        "prompt_tokens": row["num_input_tokens"],
        "completion_tokens": row["num_generated_tokens"],
    }
