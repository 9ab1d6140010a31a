"""Libraries that take long to import: each is imported when one of its names is first used.

`bench --help` and listings need none of them. A module that cannot do without one imports it as
usual.
"""

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Library:
    """A module that is imported when an attribute of it is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def _module(self) -> Any:
        return importlib.import_module(self._name)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._module, attribute)


class _StandIn(ModuleType):
    """Takes the place of a module until one of its names is read, or one function is called."""

    def __init__(self, name: str, function: str) -> None:
        super().__init__(name)
        spec: Any = importlib.util.find_spec(name)
        places = spec.submodule_search_locations
        vars(self).update(__spec__=spec, __file__=spec.origin, __path__=places)
        self._function = function

    def __getattr__(self, attribute: str) -> Any:
        if attribute == self._function:
            return lambda *values, **named: getattr(self._module(), attribute)(*values, **named)
        return getattr(self._module(), attribute)

    def _module(self) -> ModuleType:
        self.leave()
        return importlib.import_module(self.__name__)

    def leave(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


@contextmanager
def postponed(parts: Mapping[str, str]) -> Iterator[None]:
    """Import libraries without parts of scipy, which it finds when they are first read.

    `parts` maps each to the function that the libraries import from it, or to "".
    """
    stand_ins = [_StandIn(name, parts[name]) for name in parts.keys() - sys.modules.keys()]
    for stand_in in stand_ins:  # unless another thread has begun to import it
        sys.modules.setdefault(stand_in.__name__, stand_in)
    try:
        yield
    finally:
        for stand_in in stand_ins:
            stand_in.leave()


datasets: Any = Library("datasets")
pa: Any = Library("pyarrow")
pc: Any = Library("pyarrow.compute")
pd: Any = Library("pandas")
pj: Any = Library("pyarrow.json")
pq: Any = Library("pyarrow.parquet")
ndimage: Any = Library("scipy.ndimage")
optimize: Any = Library("scipy.optimize")
sparse: Any = Library("scipy.sparse")
special: Any = Library("scipy.special")
stats: Any = Library("scipy.stats")  # takes a second
if TYPE_CHECKING:
    import huggingface_hub as huggingface_hub
    import torch as torch
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
    from matplotlib.transforms import Bbox as Bbox
    from pandas import DataFrame as DataFrame
    from pydantic import JsonValue as JsonValue
    from torch import Tensor as Tensor
else:
    huggingface_hub, torch = Library("huggingface_hub"), Library("torch")
    Axes = Bbox = DataFrame = Figure = JsonValue = Tensor = object  # for annotations alone
