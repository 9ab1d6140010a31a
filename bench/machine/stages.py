"""The stages of long work: what is under way, how much of it is done, and since when."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(eq=False)
class Stage:
    """Work that is under way."""

    name: str
    total: int = 0  # 0: nothing is counted
    unit: str = "images"
    done: int = 0
    started: float = field(default_factory=time.perf_counter)
    measure: Callable[[], int] | None = None  # what is done of work that others do


displays: list[object] = []  # what shows the stages; the innermost one is last
_under_way: list[Stage] = []


def current(latest: float = float("inf")) -> Stage | None:
    """Return the stage under way that began last, by the time `latest`; None if there is none."""
    stage = next((begun for begun in _under_way[::-1] if begun.started <= latest), None)
    if stage is not None and stage.measure is not None:
        stage.done = min(stage.measure(), stage.total)
    return stage


@contextmanager
def stage(name: str, total: int = 0, unit: str = "images") -> Iterator[Stage]:
    """Show a stage while the block runs, which counts what is done of the `total`."""
    begun = Stage(name, total, unit)
    _under_way.append(begun)
    try:
        yield begun
    finally:
        _under_way.remove(begun)  # not the last one, since runs may begin at the same time


def counted(items: Iterable[Item], name: str, total: int, unit: str = "images") -> Iterator[Item]:
    """Yield items; a stage shows how many of the `total` are done."""
    with stage(name, total, unit) as begun:
        for item in items:
            yield item
            begun.done += 1
