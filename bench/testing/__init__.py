"""Contract tests for plugin authors, as pytest classes to subclass.

    from bench.testing import StrategyContract

    class TestMine(StrategyContract):
        def make(self, draws):
            return Mine(draws=draws)

`pytest` then runs every check of the contract. A class is imported when it is first accessed, so
that the tests of a strategy, for example, do not need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.testing.backbones import ClassifierContract as ClassifierContract
    from bench.testing.backbones import DenoiserContract as DenoiserContract
    from bench.testing.backbones import LikelihoodContract as LikelihoodContract
    from bench.testing.datasets import DatasetContract as DatasetContract
    from bench.testing.datasets import ItemsContract as ItemsContract
    from bench.testing.datasets import ViewsContract as ViewsContract
    from bench.testing.runs import ExecutorContract as ExecutorContract
    from bench.testing.runs import ExporterContract as ExporterContract
    from bench.testing.runs import MetricContract as MetricContract
    from bench.testing.strategies import StrategyContract as StrategyContract

MODULES = {
    **dict.fromkeys(("ClassifierContract", "DenoiserContract", "LikelihoodContract"), "backbones"),
    **dict.fromkeys(("DatasetContract", "ItemsContract", "ViewsContract"), "datasets"),
    **dict.fromkeys(("ExecutorContract", "ExporterContract", "MetricContract"), "runs"),
    "StrategyContract": "strategies",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
