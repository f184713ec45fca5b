from tests.llm.conftest import needs_vllm, pairs, tiny_llama, vllm_engine  # noqa: F401
