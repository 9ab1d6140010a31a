"""Deprecated name of `bench.inputs.data`."""

from bench._moved import moved

moved(__name__, "bench.inputs.data")
