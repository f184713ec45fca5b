"""Gating: which negatives are kept, and why not the others."""
