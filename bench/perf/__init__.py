"""Measure the speed of a backbone on this machine, and the overhead of the engine."""
