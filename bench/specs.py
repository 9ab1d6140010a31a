"""Deprecated name of `bench.contracts.specs`."""

from bench._moved import moved

moved(__name__, "bench.contracts.specs")
