"""Evaluation: a retriever measured by MTEB, arms compared over seeds, and what came of it told."""
