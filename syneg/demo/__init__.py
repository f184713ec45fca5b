"""The embedded default: a source, recorded completions and a job that needs no hub and no GPU."""
