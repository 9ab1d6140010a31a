"""Deprecated name of `bench.discovery.loading`."""

from bench._moved import moved

moved(__name__, "bench.discovery.loading")
