"""Libraries that take long to import: each is imported when one of its names is first used.

`bench --help` and listings need none of them. A module that cannot do without one imports it as
usual.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any


class Library:
    """A module that is imported when an attribute of it is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


class _StandIn(ModuleType):
    """Takes the place of a module, which is imported when one of its names is used."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "__file__":  # `inspect` reads it of all modules
            raise AttributeError(attribute)
        self.leave()
        return getattr(import_module(self.__name__), attribute)

    def leave(self) -> None:
        """Leave the place to the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


@contextmanager
def postponed(*names: str) -> Iterator[None]:
    """Import a library without these parts of scipy, which it names but may never use.

    scipy imports a part when its name is first read, so what the library uses later is there.
    """
    stand_ins = [_StandIn(name) for name in names]
    for stand_in in stand_ins:
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
else:
    huggingface_hub, torch = Library("huggingface_hub"), Library("torch")
