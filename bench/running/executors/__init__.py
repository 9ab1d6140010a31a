"""Executors: score the images of a run in this process, or with Ray workers."""
