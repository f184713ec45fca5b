"""Inspection: a data set as a page or in the terminal, before it is trusted."""
