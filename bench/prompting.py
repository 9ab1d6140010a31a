"""Deprecated name of `bench.inputs.prompts`."""

from bench._moved import moved

moved(__name__, "bench.inputs.prompts")
