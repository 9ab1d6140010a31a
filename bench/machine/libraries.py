"""Libraries that take long to import: each is imported when one of its names is first used.

`bench --help` and listings need none of them. A module that cannot do without one imports it as
usual.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Library:
    """A module that is imported when an attribute of it is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def _module(self) -> Any:
        return import_module(self._name)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._module, attribute)


class _StandIn(ModuleType):
    """Takes the place of a module, which is imported when one of its names is read.

    One function can be read before: then the module is imported when it is called.
    """

    def __init__(self, name: str, function: str) -> None:
        super().__init__(name)
        self._function, spec = function, find_spec(name)
        assert spec is not None
        vars(self).update(__file__=spec.origin, __path__=spec.submodule_search_locations)

    def __getattr__(self, attribute: str) -> Any:
        return self._call if attribute == self._function else getattr(self._module(), attribute)

    def _call(self, *arguments: Any, **keywords: Any) -> Any:
        return getattr(self._module(), self._function)(*arguments, **keywords)

    def _module(self) -> ModuleType:
        self.leave()
        return import_module(self.__name__)

    def leave(self) -> None:
        """Leave the place to the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


@contextmanager
def postponed(**parts: str) -> Iterator[None]:
    """Leave out parts of scipy while a library is imported that names them and may not use them.

    Each is named with the function that the library imports from it, or with "". scipy imports a
    part when its name is first read, so that the library finds it later.
    """
    named = {f"scipy.{part}": function for part, function in parts.items()}
    stand_ins = [_StandIn(*part) for part in named.items() if part[0] not in sys.modules]
    sys.modules.update((stand_in.__name__, stand_in) for stand_in in stand_ins)
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
