"""Deprecated name of `bench.inputs.draws`."""

from bench._moved import moved

moved(__name__, "bench.inputs.draws")
