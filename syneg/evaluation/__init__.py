"""Evaluation by MTEB, comparisons of training configurations, and reports."""
