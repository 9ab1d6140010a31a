"""A strategy is one module: what it is called, takes and is swept with stands in its class."""

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from helpers.places import ROOT
from helpers.refusals import refused

from bench.contracts.parameters import Parameter
from bench.contracts.specs import StrategySpec
from bench.contracts.strategy import Strategy
from bench.discovery.declared import register_modules
from bench.discovery.loading import load_plugins
from bench.discovery.queries import exhaustive_strategy
from bench.discovery.targets import load_target

NEW = '''
from typing import Annotated, Any, ClassVar, Literal

from bench.contracts.parameters import LATER
from bench.contracts.strategy import ErrorTable, Strategy


class Vote(Strategy):
    """Each draw votes.

    Args:
        keep: how many prompts are kept; the
            best ones.
        least: votes that win; None: half of them.
        rule: how ties end.
    """

    spec: ClassVar[dict[str, Any]] = {"name": "poll", "version": 2}

    def __init__(
        self,
        keep: tuple[int, ...] = (5, 1),
        least: float | None = None,
        rule: Annotated[Literal["first", "none"] | None, LATER] = None,
        draws: int = 500,
    ) -> None:
        self.draws = draws

    @staticmethod
    def sweep(n_draws, linearised, learned):
        return [{"keep": (n_draws, 1)}]

    def start(self, problem):
        return ErrorTable(problem)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the strategies' folder, as a package of its own."""
    folder = tmp_path / "copied_strategies"
    shutil.copytree(
        ROOT / "plugins" / "bench_plugins" / "strategies",
        folder,
        ignore=shutil.ignore_patterns("_*_"),
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("copied_strategies")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def registered(package: Path) -> dict[str, dict[str, Any]]:
    specs: dict[str, dict[str, Any]] = {}
    importlib.invalidate_caches()
    register_modules(lambda name, **fields: specs.update({name: fields}), package.name)
    return specs


def test_a_strategy_is_one_file(package: Path) -> None:
    before = set(registered(package))
    (package / "poll.py").write_text(NEW)
    specs = registered(package)
    assert set(specs) - before == {"poll"} and "race" in before
    spec = StrategySpec(name="poll", **specs["poll"])
    assert spec.target == "copied_strategies.poll:Vote" and spec.summary == "Each draw votes."
    assert spec.parameters == {
        "keep": Parameter((5, 1), "how many prompts are kept; the best ones", type=tuple[int, ...]),
        "least": Parameter(None, "votes that win; None: half of them", type=float),
        "rule": Parameter(None, "how ties end", type=Literal["first", "none"], later=True),
        "draws": Parameter(500, "", type=int),
    }
    assert spec.resolve_parameters({"keep": "3,1", "least": "2"})["keep"] == (3, 1)
    assert "copied_strategies.poll" not in sys.modules, "it was read, not imported"
    assert load_target(spec).sweep(8, False, {}) == [{"keep": (8, 1)}]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ('"poll", "ve', 'NAME, "ve'),
        ("= 500", "= DRAWS"),
        ("draws: int = 500", "*, draws: int"),
        ("draws: int = 500", "draws=500"),
        ('"name": "poll", ', ""),
        ("int = 500", "Draws = 5"),
    ],
)
def test_what_is_no_literal_is_named(package: Path, wrong: str, right: str) -> None:
    (package / "poll.py").write_text(NEW.replace(wrong, right))
    with refused("copied_strategies.poll:Vote", "spec", kind=ValueError):
        registered(package)


def test_a_spec_says_what_its_class_takes() -> None:
    """The spec was read from the source; the class is made with the same defaults."""
    for spec in load_plugins().strategies:
        kind: type[Strategy] = load_target(spec)
        assert all(parameter.help for parameter in spec.parameters.values()), spec.name
        assert kind(**spec.resolve_parameters({})).draws == kind().draws


def test_the_toolkit_finds_strategies_by_what_they_are_for() -> None:
    assert exhaustive_strategy() == "full"
    strategies = load_plugins().strategies
    learned = {spec.name: spec.learned for spec in strategies if spec.learned}
    assert learned == {"race": ("deviation",), "screen-race": ("reach",)}
    assert strategies.get("screen-race").recorder == "full-linearised"
