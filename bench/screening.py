"""Deprecated name of `bench.recordings.screening`."""

from bench._moved import moved

moved(__name__, "bench.recordings.screening")
