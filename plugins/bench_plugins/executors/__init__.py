"""Executors: this process, and workers of Ray."""

from collections.abc import Callable

from bench import hookimpl


@hookimpl
def register_executors(register: Callable[..., None]) -> None:
    """Register the executors."""
    here = "this process"
    register("local", target="bench.contracts.executor:Executor", summary=here, in_process=True)
    register(
        "ray",
        target="bench_plugins.executors.driver:RayExecutor",
        summary="workers of Ray, on this machine or on a cluster",
        parameters={"workers": "auto", "ray_address": None},
    )
