"""Deprecated name of `bench.inputs.weights`."""

from bench._moved import moved

moved(__name__, "bench.inputs.weights")
