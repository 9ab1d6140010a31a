"""A remembered answer is the one that the class would give now, whatever has changed since."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.contracts.backbone import Backbone
from bench.contracts.levels import flow_levels
from bench.contracts.specs import BackboneSpec, Parameter
from bench.discovery import answers, backbones, sources
from bench.discovery.loading import load_plugins
from bench.errors import BenchWarning, UserError
from bench.inputs.weights import Weights
from bench.machine import environment

SPEC = BackboneSpec(
    name="answering",
    target="answering_model:Model",
    trained_on=None,
    parameters={"side": Parameter(8, "pixels")},
)
MODEL = """
from bench.contracts.levels import flow_levels
from bench.errors import UserError, warn_user
from answering_library import VERSION

class Model:
    @staticmethod
    def weight_parameters(weights, side):
        if side == 13:
            raise UserError("13 is refused")
        warn_user(f"side {{side}}")
        return {{"code": {code!r}, "library": VERSION, "side": side, "of": weights.fingerprint}}

    @staticmethod
    def level_table(weights, side):
        return flow_levels({{"num_train_timesteps": 10 + side, "shift": 3.0}})

    @staticmethod
    def token_counts(weights, texts):
        return [len(text) for text in texts], {code}

    can_linearise = {code} % 2 == 0
"""


class Installation:
    """A plugin in files, and a library that it imports; `restart` is a new process to them."""

    def __init__(self, site: Path) -> None:
        self.site = site
        self.edit(0)
        self.upgrade(0)

    def edit(self, code: int) -> None:
        self.code = code
        (self.site / "answering_model.py").write_text(MODEL.format(code=code))
        self.restart()

    def upgrade(self, version: int) -> None:
        self.version = version
        for info in self.site.glob("*.dist-info"):
            info.rmdir()
        (self.site / f"answering_library-{version}.dist-info").mkdir()
        (self.site / "answering_library.py").write_text(f"VERSION = {version}")
        self.restart()

    @property
    def imported(self) -> bool:
        return "answering_model" in sys.modules

    def restart(self) -> None:
        for name in ("answering_model", "answering_library"):
            sys.modules.pop(name, None)
        answers._asked.clear()
        sources._hash_packages.cache_clear()
        sources.has_sources.cache_clear()
        environment.installed_distributions.cache_clear()
        importlib.invalidate_caches()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    # A source that is edited twice in a second has one time stamp, and its bytecode would be used.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(load_plugins().backbones._specs, SPEC.name, SPEC)
    monkeypatch.setitem(load_plugins().backbones._owners, SPEC.name, "answering")
    installation = Installation(site)
    yield installation
    installation.restart()


def ask(side: int, of: str) -> tuple[list[str], Any]:
    """Return the warnings and the answers about weights, as a manifest and a plan ask for them."""
    weights = Weights("/weights", None, of)
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        levels = backbones.fact(SPEC, Backbone.level_table, weights, side=side)
        assert levels is not None
        answered = (
            backbones.recorded_parameters(SPEC, weights, {"side": side}),
            backbones.count_tokens(SPEC, weights, ["one", "three"]),
            backbones.has_flag(SPEC, "can_linearise"),
            backbones.fact(SPEC, Backbone.linearisation_cost, weights, side),
            [(name, column.dtype, column.tolist()) for name, column in levels.columns().items()],
        )
    return [str(one.message) for one in issued if one.category is BenchWarning], answered


CHANGE = st.tuples(st.sampled_from(("edit", "upgrade", "restart")), st.integers(0, 2))


@pytest.mark.long
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CHANGE, st.integers(7, 9), st.sampled_from("ab")), max_size=8))
def test_a_hit_is_what_a_miss_would_be(installed: Installation, steps: list[Any]) -> None:
    for (change, number), side, of in steps:
        if change == "restart":
            installed.restart()
        else:
            getattr(installed, change)(number)
        first = ask(side, of)
        installed.restart()
        again = ask(side, of)
        assert not installed.imported, "the second time, nothing is imported"
        issued, (recorded, counted, linearises, _, _) = again
        assert first == again
        made = {"code": installed.code, "library": installed.version, "side": side, "of": of}
        assert recorded == made and issued == [f"side {side}"]
        assert counted == ([3, 5], installed.code) and linearises == (installed.code % 2 == 0)


def test_what_is_in_memory_is_asked(installed: Installation) -> None:
    _, before = ask(8, "a")
    installed.restart()
    model = importlib.import_module("answering_model")
    model.Model.can_linearise = not before[2]
    assert ask(8, "a")[1][2] is not before[2]


def test_encoded_prompts_are_those_of_the_code_that_is_installed(installed: Installation) -> None:
    weights = Weights("/weights", None, "a")

    def keys() -> tuple[str, str]:
        return backbones.encoder_key(SPEC, weights, {"side": 8}), backbones.code_of(SPEC)

    first = keys()
    installed.edit(1)
    assert keys() != first
    installed.edit(0)
    assert keys() == first
    assert backbones.code_of(load_plugins().backbones.get("tiny-digits")) == ""


def test_errors_and_other_values_are_not_remembered(installed: Installation) -> None:
    weights = Weights("/weights", None, "a")
    for _ in range(2):
        with pytest.raises(UserError, match="13 is refused"):
            backbones.recorded_parameters(SPEC, weights, {"side": 13})
        assert installed.imported
        installed.restart()
    assert answers.remember(SPEC, "a tuple", lambda: (1,)) == (1,)
    assert answers.remember(SPEC, "a tuple", lambda: (2,)) == (2,)


def test_a_class_of_another_name_or_place_is_not_taken_for_it(installed: Installation) -> None:
    ask(8, "a")
    installed.restart()
    for spec in (replace(SPEC, version=2), replace(SPEC, target="answering_model:Other")):
        assert answers.remember(spec, "can_linearise", lambda: "asked") == "asked"
    unregistered = replace(SPEC, name="another")
    assert answers.remember(unregistered, "x", lambda: 1) == 1
    assert answers.remember(unregistered, "x", lambda: 2) == 2


def test_levels_are_stored_exactly() -> None:
    levels = flow_levels({"num_train_timesteps": 7, "shift": 3.0})
    for name, column in levels.columns().items():
        assert (backbones._unpacked(backbones._packed(column)) == column).all(), name
