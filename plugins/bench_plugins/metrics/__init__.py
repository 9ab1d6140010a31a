"""Metrics: averages of per-class ratios, which are declared in TOML, and classes with a `spec`."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from bench import hookimpl, register_modules
from bench.contracts.metric_spec import ClassRatio
from bench.machine.files import read_toml


@hookimpl
def register_metrics(register: Callable[..., None]) -> None:
    """Register the metrics."""
    averages: dict[str, Any] = read_toml(files(__package__) / "averages.toml")
    for name, average in averages.items():
        hub = {"hub": tuple(average["hub"])} if "hub" in average else {}
        register(name, **{**average, **hub, "ratio": ClassRatio(**average["ratio"])})
    register_modules(register, __name__)
