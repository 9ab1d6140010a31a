"""Metrics of a run and of two, with the checks of what plugins return."""
