"""The parts of the check, in order of worth, and what each is expected to take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.gpu.machine import Machine
    from benchmarks.gpu.report import Row


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: of its table.
        seconds: that it is expected to take on an H100: guessed, until one was measured.
        small: likewise, with small shapes on two cores of a CPU.
        target: the function that yields its rows, `module:function`; imported when it is measured,
            since torch takes seconds.
        shape: of the network that it is about; None: of none.
    """

    name: str
    seconds: float
    small: float
    target: str
    shape: str | None = None

    def measure(self, machine: Machine) -> Iterator[Row]:
        """Yield its rows."""
        module, _, function = self.target.partition(":")
        work = getattr(import_module(f"benchmarks.gpu.{module}"), function)
        rows: Iterator[Row] = work(machine, self.shape) if self.shape else work(machine)
        return rows


PARTS = (
    Part("machine", 15, 1, "machine:itself"),
    Part("families", 120, 25, "exactness:each_family"),
    Part("digits", 90, 12, "exactness:digits"),
    Part("classes", 150, 25, "exactness:each_class"),
    Part("rates of sd21", 120, 4, "networks:rates", "sd21"),
    Part("roofline of sd21", 60, 3, "roofline:roofline", "sd21"),
    Part("engine over bare", 300, 15, "runs:engine_over_bare"),
    Part("ucmerced", 450, 5, "runs:ucmerced"),
    Part("real cells", 150, 2, "exactness:real_cells"),
    Part("out of memory", 60, 2, "exactness:out_of_memory"),
    Part("linearised draws", 90, 5, "runs:linearised"),
    Part("switches of sd21", 400, 10, "networks:switches", "sd21"),
    Part("rates of sdxl", 250, 8, "networks:rates", "sdxl"),
    Part("roofline of sdxl", 60, 3, "roofline:roofline", "sdxl"),
    Part("rates of sd3", 250, 2, "networks:rates", "sd3"),
    Part("roofline of sd3", 60, 3, "roofline:roofline", "sd3"),
    Part("switches of sdxl", 450, 10, "networks:switches", "sdxl"),
    Part("switches of sd3", 450, 5, "networks:switches", "sd3"),
)


def fitting(wanted: Iterable[tuple[str, float]], budget: float) -> tuple[list[str], list[str]]:
    """Return the names of parts that fit into a budget, and those that do not.

    A part that does not fit makes room for cheaper ones behind it.

    Args:
        wanted: names and expected seconds, in order of worth.
        budget: seconds.
    """
    fits: list[str] = []
    left_out: list[str] = []
    for name, seconds in wanted:
        if seconds <= budget:
            fits.append(name)
            budget -= seconds
        else:
            left_out.append(name)
    return fits, left_out
