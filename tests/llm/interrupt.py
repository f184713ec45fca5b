"""Run by test_interrupt.py: a generation with a real engine, until it is stopped."""

import sys
from pathlib import Path

from syneg.sources import Pair
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import negatives_of
from tests.llm.conftest import VLLM_OPTIONS


def main(llm: str, journal: str) -> None:
    import tests.llm.engines  # noqa: F401

    pairs = [Pair(f"q{i}", f"query {i}", f"d{i}", "positive " * 20) for i in range(100_000)]
    args = GenerationArguments(llm=llm, strategy="bounded", max_tokens=200, engine_options=VLLM_OPTIONS)
    try:
        negatives_of(pairs, args, Path(journal), 0, progress=False).run()
    except KeyboardInterrupt:
        print("interrupted")
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
