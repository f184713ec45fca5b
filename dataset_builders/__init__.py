"""Builders of hard-negative data sets, and one YAML file for each data set."""
