from __future__ import annotations

import pytest

from syneg.errors import InputError
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import negatives_of
from tests.llm.engines import written_by

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'syneg[ray]'")


@pytest.fixture
def local_ray():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.vllm
@pytest.mark.distributed
@pytest.mark.timeout(240)
def test_a_local_cluster_writes_under_the_schema(
    needs_vllm, local_ray, tiny_llama, pairs, tmp_path, monkeypatch
):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    engine_kwargs = {
        "dtype": "float32",
        "enforce_eager": True,
        "max_model_len": 4096,
        "max_num_seqs": 8,
        "enable_chunked_prefill": False,
        "distributed_executor_backend": "uni",
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    args = GenerationArguments(
        engine="ray",
        llm=str(tiny_llama),
        strategy="bounded",
        max_tokens=300,
        max_attempts=1,
        slots=2,
        engine_options={
            "engine_kwargs": engine_kwargs,
            "placement_group_config": {"bundles": [{"CPU": 1}]},
            "log_engine_metrics": False,
            "batch_size": 4,
            "runtime_env": {"env_vars": {"VLLM_CPU_KVCACHE_SPACE": "1"}},
        },
    )
    report = negatives_of(pairs, args, tmp_path, 0, progress=False).run()
    assert report.completions == 12 and report.kept >= 8
    assert report.failures.keys() <= {"truncated"} and report.prompt_tokens > 1000
    (result, *_) = written_by(pairs, args, tmp_path, 0)
    assert result.negatives[0]["generator"] == str(tiny_llama)


def test_an_option_that_ray_does_not_know(tiny_llama):
    from syneg.llm.engines.ray_cluster import RayEngine

    with pytest.raises(InputError, match=r"no option 'concurency'. Did you mean 'concurrency'"):
        RayEngine(str(tiny_llama), {"concurency": 2})
