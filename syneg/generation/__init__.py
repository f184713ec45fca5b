"""Generation: pairs in, hard negatives written by an LLM out, with a journal in between."""
