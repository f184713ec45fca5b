"""Asking an LLM: requests, engines, the journal of completions, recordings. Knows nothing of negatives."""
