"""Deprecated name of `bench.contracts.strategy`."""

from bench._moved import moved

moved(__name__, "bench.contracts.strategy")
