"""Deprecated name of `bench.contracts.backbone`."""

from bench._moved import moved

moved(__name__, "bench.contracts.backbone")
