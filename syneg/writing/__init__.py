"""Writing: what an LLM is asked to write, and how its completions are read."""
