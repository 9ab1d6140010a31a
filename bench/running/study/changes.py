"""Changes that options make to a study's runs, and how they deviate from its file."""

from __future__ import annotations

from collections.abc import Mapping

from bench.discovery.loading import load_plugins
from bench.running.parts.scorer import find_backbone
from bench.running.settings import SETTINGS, about, make_config, options_of
from bench.running.study.values import Table, in_text

CHANGES = options_of("study")  # they change its runs
UNMEASURED = about("data", "record")  # they change no figure
REHEARSED = ("backbone", "strategy", "limit")  # they make figures incomparable, as parameters do


def apply_changes(grid: Table, changes: Table, offline: bool) -> tuple[Table, dict[str, str]]:
    """Return the settings of a grid with the user's changes, and name → deviation in words.

    Settings and parameters that belong to a replaced backbone or strategy are dropped. Raises
    UserError for an unknown backbone.
    """
    params, new_params = grid["params"], changes.get("params", {})
    assert isinstance(params, Mapping) and isinstance(new_params, Mapping)
    own, new = ({k: v for k, v in table.items() if k != "params"} for table in (grid, changes))
    deviations = _deviations(own, new) | _deviations(params, new_params)
    of_backbones = {name for spec in load_plugins().backbones for name in spec.parameters}
    if "strategy" in deviations:
        params = {name: value for name, value in params.items() if name in of_backbones}
    if "backbone" in deviations:
        named = {name: new.get(name) for name in ("backbone", "weights")}
        spec = find_backbone(make_config({"dataset": "-", "offline": offline, **named})).spec
        parameters = {name for name in own if SETTINGS[name].passed_to == spec.kind}
        foreign = {*parameters, *(of_backbones & params.keys())} - {*spec.parameters}
        foreign |= {name for name in own if spec.scorer not in SETTINGS[name].scorers}
        unfit = [name for name in (*own, *params) if name in foreign]
        deviations |= {name: f"{name}: not a setting of this backbone" for name in unfit}
        parts = {name for name in about("network") if SETTINGS[name].identity == "content"}
        own = {k: v for k, v in own.items() if k not in parts | foreign}
        params = {k: v for k, v in params.items() if k not in foreign}
    return {**own, **new, "params": {**params, **new_params}}, deviations


def _deviations(before: Table, after: Table) -> dict[str, str]:
    usual = {"limit": "all images"}
    return {
        name: f"{name}: {in_text(value)} instead of "
        + (in_text(before[name]) if name in before else usual.get(name, "the default"))
        for name, value in after.items()
        if name not in UNMEASURED and in_text(value) != in_text(before.get(name))
    }
