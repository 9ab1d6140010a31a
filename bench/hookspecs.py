"""Deprecated name of `bench.contracts.hooks`."""

from bench._moved import moved

moved(__name__, "bench.contracts.hooks")
