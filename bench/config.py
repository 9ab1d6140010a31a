"""Deprecated name of `bench.running.settings`."""

from bench._moved import moved

moved(__name__, "bench.running.settings")
