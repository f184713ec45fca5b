"""Generation's speed and memory, as ratios that hold on any machine.

    python -m benchmarks.generation overhead   # our whole path against a bare LLM.chat
    python -m benchmarks.generation order      # shared text first against query first
    python -m benchmarks.generation several    # several negatives in one completion against one each
    python -m benchmarks.generation memory --requests 1000000

The first three run vLLM with a random Llama of about 100M parameters, with all completions of the
same length, so that both sides do the same work; `memory` needs no vLLM.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from syneg.llm.journal import Journal
from syneg.llm.requests import Completion, Message, Request
from syneg.sources import Pair
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import NegativesTask, negatives_of
from syneg.writing.strategies import Example, SynegStrategy, register

LENGTH = 64
"""Characters that the document of every completion has."""


@register
class FixedLengthStrategy(SynegStrategy):
    """The paper's prompt; a grammar without choice of length, so that all completions cost the same."""

    name = "fixed"

    def properties(self) -> dict[str, Any]:
        text = {"type": "string", "minLength": LENGTH, "maxLength": LENGTH}
        return {"reasoning": {"type": "string", "maxLength": 0}, "hard_negative_document": text}


@register
class QueryFirstStrategy(FixedLengthStrategy):
    """The same text, what differs between requests first: the paper's own order."""

    name = "query_first"

    def messages(self, example: Example) -> list[Message]:
        system, user = super().messages(example)
        return [{"role": "user", "content": f"{user['content']}\n\n{system['content']}"}]


class LazyPairs:
    """Pairs that are made when they are asked for."""

    def __init__(self, count: int, words: int = 60) -> None:
        self.count = count
        self.words = words

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Pair]:
        for i in range(self.count):
            text = " ".join(f"word{(i * 31 + j * 17) % 997}" for j in range(self.words))
            yield Pair(f"q{i}", f"which of the rivers runs through town {i}", f"d{i}", text)


class Echo:
    """An engine that answers at once."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        text = json.dumps({"reasoning": "so and so " * 8, "hard_negative_document": "written " * 60})
        for request in requests:
            yield Completion(request.key, text, "stop", 900, 200, 800, "echo")

    def close(self) -> None:
        pass


SHAPE = {"hidden_size": 768, "layers": 12, "heads": 12}
"""Of the Llama; about 100M parameters."""


def start_llm(folder: Path, shape: dict[str, int] = SHAPE, **options: Any) -> tuple[Any, Path]:
    """Starts vLLM with a random Llama of that shape, and returns it and the model's folder."""
    from vllm import LLM

    from tests.tiny_llm import make_tiny_llama

    model = make_tiny_llama(folder / "llama", **shape)
    settings: dict[str, Any] = {
        "enforce_eager": True,
        "max_model_len": 4096,
        "max_num_seqs": 16,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": True,
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    return LLM(str(model), **{**settings, **options}), model


def bare_chat(llm: Any, requests: list[Request]) -> int:
    """Returns the tokens that a bare `LLM.chat` wrote for these requests."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    params = []
    for request in requests:
        sampling = {k: v for k, v in request.sampling.items() if k != "chat_template_options"}
        schema = StructuredOutputsParams(json=json.dumps(dict(request.schema)))
        params.append(SamplingParams(**sampling, structured_outputs=schema))
    outputs = llm.chat(
        [list(request.messages) for request in requests],
        params,
        use_tqdm=False,
        chat_template_kwargs={"enable_thinking": False},
    )
    return sum(len(output.outputs[0].token_ids) for output in outputs)


class Collector(Echo):
    """Answers at once, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            self.requests.append(request)
            yield Completion(request.key, '{"reasoning": "", "hard_negative_document": "d"}', "stop")


def timed(llm: Any, work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Returns wall time, this process's CPU time (the LLM computes in another), and the result."""
    llm.reset_prefix_cache()
    begin, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - begin, time.process_time() - cpu, result


def overhead(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Our path (render, queue, parse, journal with fsync) against `LLM.chat`, turn by turn."""
    return both_paths(*start_llm(folder), options, folder)


def both_paths(llm: Any, model: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """See `overhead`; for a vLLM that runs already."""
    from syneg.llm.engines.vllm_engine import VllmEngine

    engine = VllmEngine(str(model), engine=llm.llm_engine)
    pairs = LazyPairs(options.requests or 64)
    args = GenerationArguments(llm=str(model), strategy="fixed", max_tokens=700)
    collector = Collector()
    negatives_of(pairs, args, folder / "collected", 0, engine=collector, progress=False).run()
    bare_chat(llm, collector.requests[:8])
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    cpu_seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    shares: list[float] = []
    for turn in range(options.turns):

        def ours(turn: int = turn) -> int:
            report = negatives_of(pairs, args, folder / f"ours-{turn}", 0, engine=engine, progress=True).run()
            assert report.kept == len(pairs), report.lines()
            shares.append(report.run.cached_tokens / report.run.prompt_tokens)
            return report.completion_tokens

        order = [("bare", lambda: bare_chat(llm, collector.requests)), ("ours", ours)]
        for name, work in order if turn % 2 == 0 else reversed(order):
            taken, cpu, tokens = timed(llm, work)
            seconds[name].append(taken)
            cpu_seconds[name].append(cpu)
            print(f"turn {turn} {name}: {taken:.2f} s, {tokens} tokens", file=sys.stderr)
    ratios = [ours / bare for ours, bare in zip(seconds["ours"], seconds["bare"], strict=True)]
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "requests": len(pairs),
        "seconds": seconds,
        "cpu_seconds_of_this_process": cpu_seconds,
        "median_ratio": statistics.median(ratios),
        "ratio_of_medians": medians["ours"] / medians["bare"],
        "ratio_of_minima": min(seconds["ours"]) / min(seconds["bare"]),
        "cached_shares": shares,
    }


def order(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Shared text first against query first: what the prefix cache serves, and wall time."""
    return compare(
        options,
        folder,
        {name: {"strategy": name} for name in ("fixed", "query_first")},
        options.requests or 48,
    )


def several(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Four negatives a pair: one, two and four in a completion."""
    settings = {
        f"{n} a request": {"strategy": "fixed", "slots": 4, "negatives_per_request": n} for n in (1, 2, 4)
    }
    return compare(options, folder, settings, options.requests or 12)


def compare(
    options: argparse.Namespace, folder: Path, settings: dict[str, dict[str, Any]], pairs: int
) -> dict[str, Any]:
    from syneg.llm.engines.vllm_engine import VllmEngine

    llm, model = start_llm(folder)
    engine = VllmEngine(str(model), engine=llm.llm_engine)
    figures: dict[str, Any] = {"pairs": pairs}
    for name, setting in settings.items():
        args = GenerationArguments(llm=str(model), max_tokens=700, **setting)
        times = []
        for turn in range(options.turns):
            taken, _, report = timed(
                llm,
                lambda args=args, target=folder / f"{name}-{turn}": negatives_of(
                    LazyPairs(pairs), args, target, 0, engine=engine, progress=False
                ).run(),
            )
            times.append(taken)
        run = report.run
        figures[name] = {
            "kept": report.kept,
            "prompt_tokens_per_kept": run.prompt_tokens / report.kept,
            "uncached_prompt_tokens_per_kept": (run.prompt_tokens - run.cached_tokens) / report.kept,
            "completion_tokens_per_kept": run.completion_tokens / report.kept,
            "cached_share": run.cached_tokens / run.prompt_tokens,
            "seconds": times,
        }
    return figures


def memory(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Renders and journals many requests, reads them out again, and replays them into another journal.

    Reading renders each request again, looks it up in the journal and parses its completion.
    Writing goes on where it was stopped when it is run again with the same --folder.
    """
    count = options.requests or 100_000
    folder = Path(options.folder) if options.folder else folder
    figures: dict[str, Any] = {"requests": count, "MB": {"start": _megabytes()}, "seconds": {}}

    def step(name: str, work: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = work()
        figures["seconds"][name] = time.perf_counter() - begin
        figures["MB"][name] = _megabytes()
        print(f"{name}: {figures['seconds'][name]:.0f} s, {figures['MB'][name]:.0f} MB", file=sys.stderr)
        return result

    args = GenerationArguments()
    recorded = GenerationArguments(engine="recorded", recordings=str(folder / "written"))
    pairs = LazyPairs(count)
    if options.step in (None, "write"):
        step(
            "write",
            lambda: write(pairs, args, folder / "written"),
        )
    if options.step in (None, "read"):
        generation = negatives_of(pairs, args, folder / "written", 0)
        assert (
            step("read", lambda: sum(len(a.results) for slots in generation.results() for a in slots))
            == count
        )
    if options.step in (None, "replay"):
        report = step(
            "replay", lambda: negatives_of(pairs, recorded, folder / "replayed", 0, progress=False).run()
        )
        assert report.kept == count, report.lines()
    return figures


def write(pairs: LazyPairs, args: GenerationArguments, folder: Path) -> None:
    """Journals an answer to the request of each pair that comes after those the journal has."""
    task = NegativesTask(args, 0)
    with Journal(folder) as journal:
        for pair in itertools.islice(pairs, len(journal), None):
            for request in task.requests(pair):
                assert request is not None
                (completion,) = Echo().generate([request])
                journal.append(request, completion)


def _megabytes() -> float:
    """Returns the most memory that this process ever had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["overhead", "order", "several", "memory"])
    parser.add_argument("--requests", type=int)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", help="memory: keep the journals here, to run its steps one by one")
    parser.add_argument("--step", choices=["write", "replay", "read"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = globals()[options.what](options, Path(folder))
    print(json.dumps({"what": options.what, **figures}, indent=2))


if __name__ == "__main__":
    main()
