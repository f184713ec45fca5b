from tests.llm.conftest import needs_vllm, tiny_llama, vllm_engine  # noqa: F401
