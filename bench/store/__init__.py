"""The store: a folder per run, with a durable line per image. It does not import torch."""
