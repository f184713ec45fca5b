"""The engine `openai`: one or several servers that speak OpenAI's protocol, `vllm serve` above all."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import queue
import random
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any

from syneg.errors import InputError
from syneg.llm.parsing import PROMPT_TOO_LONG
from syneg.llm.requests import Completion, Request

_DEFAULTS: dict[str, Any] = {"timeout": 600.0, "max_retries": 8, "extra_body": {}}
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_TOO_LONG = ("context length", "context_length", "max_model_len", "longer than the maximum")


def check_openai(base_urls: Sequence[str], options: Mapping[str, Any]) -> None:
    """Checks that the engine can be made; no server is asked.

    Raises:
        InputError: Where there is no server, an option is unknown, or `openai` is not installed.
    """
    if importlib.util.find_spec("openai") is None:
        raise InputError("--engine openai: the client is not installed. pip install 'syneg[openai]'.")
    if not base_urls:
        raise InputError("--engine openai needs --base_urls, as in http://localhost:8000/v1.")
    for url in base_urls:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"--base_urls {url}: is no address, as in http://localhost:8000/v1.")
    unknown = options.keys() - _DEFAULTS.keys()
    if unknown:
        raise InputError(
            f"--engine_options: the engine openai takes timeout, max_retries and extra_body, "
            f"not {sorted(unknown)[0]!r}."
        )


class OpenAIEngine:
    """Sends requests to servers, a bounded number at a time.

    A request that meets 429, a 5xx, a time-out or no connection is sent again after a pause that
    doubles each time (or as long as the server asks for), to another server if there is one. Any
    other 4xx is never sent again: it says that the request or the key is wrong. The key is
    OPENAI_API_KEY of the environment, and appears nowhere else.

    Args:
        llm: The model's name at the servers.
        base_urls: The servers, as in ``http://localhost:8000/v1``.
        concurrency: Requests in flight at each server.
        options: ``timeout`` (seconds for one request), ``max_retries`` and ``extra_body`` (merged
            into each request).

    Raises:
        InputError: Where there is no server, an option is unknown, or `openai` is not installed.
    """

    def __init__(
        self,
        llm: str,
        base_urls: Sequence[str],
        concurrency: int = 64,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        check_openai(base_urls, options or {})
        options = _DEFAULTS | dict(options or {})
        self.llm = llm
        self.retries = 0
        self._options = options
        self._servers = [_Server(url, options["timeout"]) for url in base_urls]
        self._window = concurrency * len(self._servers)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-engine", daemon=True)
        self._thread.start()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yields completions as they come. Requests in flight are cancelled if the caller stops.

        Raises:
            InputError: Where a server refuses a request, or all tries at one failed.
        """
        source = iter(requests)
        answers: queue.SimpleQueue[Completion | BaseException] = queue.SimpleQueue()
        in_flight = 0
        failure: BaseException | None = None
        tasks: set[Any] = set()
        try:
            while True:
                while (
                    failure is None
                    and in_flight < self._window
                    and (request := next(source, None)) is not None
                ):
                    task = asyncio.run_coroutine_threadsafe(self._answer(request, answers), self._loop)
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    in_flight += 1
                if not in_flight:
                    break
                answer = answers.get()
                in_flight -= 1
                if isinstance(answer, BaseException):
                    # What is in flight is paid for: it is waited for before the failure is raised.
                    failure = failure or answer
                else:
                    yield answer
            if failure is not None:
                raise failure
        finally:
            for task in list(tasks):
                task.cancel()

    def close(self) -> None:
        """Closes the connections. May be called twice."""
        if self._loop.is_closed():
            return
        for server in self._servers:
            self._wait(server.client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=30)

    async def _answer(self, request: Request, answers: queue.SimpleQueue) -> None:
        try:
            answers.put(await self._complete(request))
        except Exception as error:
            # It is raised where the completions are taken.
            answers.put(error)

    async def _complete(self, request: Request) -> Completion:
        import openai

        body = self._body(request)
        tried: list[_Server] = []
        while True:
            server = min(self._servers, key=lambda one: (tried.count(one), one.in_flight))
            tried.append(server)
            server.in_flight += 1
            try:
                return self._completion(request, await server.client.chat.completions.create(**body))
            except openai.APIStatusError as error:
                if error.status_code != 429 and error.status_code < 500:
                    return self._refused(request, server, error)
                problem: openai.APIError = error
                asked = error.response.headers.get("retry-after")
            except openai.APIConnectionError as error:
                # A time-out is one of these.
                problem, asked = error, None
            finally:
                server.in_flight -= 1
            if len(tried) > self._options["max_retries"]:
                raise InputError(
                    f"{server.url} gave no answer to {request.name} in {len(tried)} tries "
                    f"({type(problem).__name__}: {_one_line(problem)}). What came is in the journal: "
                    "mend the server and run the same command again."
                )
            self.retries += 1
            await asyncio.sleep(_pause(len(tried), asked))

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = dict(request.sampling)
        template_options = sampling.pop("chat_template_options", {})
        extra = dict(self._options["extra_body"])
        if template_options:
            extra["chat_template_kwargs"] = dict(template_options)
        schema = {"name": "answer", "schema": dict(request.schema), "strict": True}
        return {
            "model": self.llm,
            "messages": [dict(message) for message in request.messages],
            "response_format": {"type": "json_schema", "json_schema": schema},
            "extra_body": extra,
            **sampling,
        }

    def _completion(self, request: Request, answer: Any) -> Completion:
        choice, usage = answer.choices[0], answer.usage
        details = getattr(usage, "prompt_tokens_details", None)
        return Completion(
            key=request.key,
            text=choice.message.content or "",
            finish_reason=choice.finish_reason or "unknown",
            prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
            completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
            cached_tokens=getattr(details, "cached_tokens", 0) or 0,
            generator=self.llm,
        )

    def _refused(self, request: Request, server: _Server, error: Any) -> Completion:
        text = _one_line(error)
        if error.status_code == 400 and any(words in text.lower() for words in _TOO_LONG):
            return Completion(request.key, "", PROMPT_TOO_LONG, generator=self.llm)
        remedies = {
            401: "Set OPENAI_API_KEY.",
            403: "Set OPENAI_API_KEY to a key that may use this model.",
            404: f"Does it serve the model under the name {self.llm!r}, and does the URL end in /v1?",
        }
        remedy = remedies.get(
            error.status_code,
            "A server that is no vLLM may want --chat_template_options '{}'.",
        )
        raise InputError(f"{server.url} refuses {request.name} with {error.status_code}: {text}. {remedy}")


class _Server:
    """A server, its client, and how many requests it is working on."""

    def __init__(self, url: str, timeout: float) -> None:
        import openai

        self.url = url.rstrip("/")
        self.in_flight = 0
        # A local server wants no key, but the client does.
        key = os.environ.get("OPENAI_API_KEY") or "none"
        self.client = openai.AsyncOpenAI(base_url=self.url, api_key=key, timeout=timeout, max_retries=0)


def _pause(tries: int, asked: str | None) -> float:
    """Returns the seconds to wait: what the server asks for, else doubling with some jitter."""
    try:
        wanted = float(asked or "")
    except ValueError:
        wanted = _FIRST_WAIT * 2 ** (tries - 1) * random.uniform(0.75, 1.25)
    return min(max(wanted, 0.0), _LONGEST_WAIT)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
