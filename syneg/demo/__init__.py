"""The embedded default: the recorded completions of a job that needs no hub and no GPU."""
