"""Contracts for plugin authors: base classes, specs and hooks."""
