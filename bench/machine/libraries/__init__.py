"""Libraries that take long to import: each is imported when one of its names is first used.

`bench --help` and listings need none of them. A module that cannot do without one imports it as
usual.
"""

import importlib
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bench.machine.guest import silence_imported
from bench.machine.stages import stage

# The newest releases with which the tests passed; `bench doctor` says if a later one is installed.
# Undocumented names stand in one module per library beside this one.
NEWEST_SEEN = {
    **{"accelerate": "1.16", "datasets": "5.2", "diffusers": "0.42", "huggingface-hub": "2.4"},
    **{"torch": "2.15", "torchvision": "0.28", "transformers": "5.25"},
}


class Library:
    """A module that is imported when an attribute of it is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    @cached_property
    def _module(self) -> Any:
        with stage(f"Importing {self._name}"):
            module = importlib.import_module(self._name)
        silence_imported()
        return module

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._module, attribute)


datasets: Any = Library("datasets")
hub_constants: Any = Library("huggingface_hub.constants")
hub_errors: Any = Library("huggingface_hub.errors")
pa: Any = Library("pyarrow")
pc: Any = Library("pyarrow.compute")
pd: Any = Library("pandas")
pj: Any = Library("pyarrow.json")
pq: Any = Library("pyarrow.parquet")
ray: Any = Library("ray")
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
