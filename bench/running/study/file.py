"""Read the TOML file of a study, which declares a grid of runs.

A list is an axis: each of its values is combined with each value of every other list. A list inside
a list is one value. Everything else is a setting that all runs share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path

from bench.discovery.loading import load_plugins
from bench.errors import UserError, did_you_mean, quoted
from bench.inputs.corruptions import expand_corruptions
from bench.machine.files import read_text, read_toml
from bench.running.parts.data import expand_datasets
from bench.running.settings import RunConfig, make_config
from bench.running.study.values import (
    PLURALS,
    Entries,
    Table,
    check_groups,
    check_seeds,
    check_shifts,
    check_stop,
    exclusion,
    in_text,
    is_excluded,
    read_entries,
    tables_of,
)
from bench.store.studies import STUDY, find_study, study_folder

TABLE_AXES = ("dataset", "backbone", "strategy")  # axes whose values may be tables with a `name`
STUDY_KEYS = (*Entries.model_fields, "grid", "exclude")
COMMAND_SETTINGS = (  # settings of one run that a study's file may not contain
    *("results", "fresh", "shard", "again", "audit", "min_accuracy", "until"),
)
FIRST_AXES, LAST_AXES = ("dataset", "split", "backbone", "strategy"), ("template", "seed")
MAX_CELLS = 10_000


@dataclass(frozen=True)
class Choice:
    """One value of an axis: its label in tables, and the settings and parameters it stands for."""

    label: str
    settings: Table
    params: Table


@dataclass(frozen=True)
class DeclaredCell:
    """One run of a study: its label on each axis, and its settings."""

    axes: Mapping[str, str]
    config: RunConfig
    backbone: object = None  # equal for runs that can share a backbone; set by `check_cells`


class DeclaredStudy(Entries):
    """A study as its file declares it."""

    file: Path
    text: str  # content of the file
    axes: tuple[str, ...]  # names of the axes, in the order of tables
    cells: tuple[DeclaredCell, ...]  # distinct runs


def read_study_file(path: Path, machine: Table) -> DeclaredStudy:
    """Read and check a study's file without loading data (UserError).

    `machine` has settings of this machine, such as `device`, which override the file.
    """
    if not path.is_file():
        raise UserError(f"There is no file {quoted(str(path))}. A study is a TOML file.")
    study: Table = read_toml(path)
    try:
        return _declared(path, read_text(path), study, machine)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def find_state(name: str, results: Path) -> Path:
    """Return the folder of a started study by its name or its file (UserError)."""
    if name.endswith(".toml") and Path(name).is_file():
        declared = read_study_file(Path(name), {})
        folder = study_folder(results, declared.name)
        if not (folder / STUDY).exists():
            raise UserError(f"The study {declared.name} was not started yet: bench study {name}")
        return folder
    return find_study(name, str(results))


def _declared(path: Path, text: str, study: Table, machine: Table) -> DeclaredStudy:
    common = _settings({k: v for k, v in study.items() if k not in STUDY_KEYS}, "a study")
    grids = [_settings(table, "a grid") for table in tables_of(study, "grid")] or [{}]
    distinct: dict[str, DeclaredCell] = {}
    labels: dict[str, dict[str, None]] = {}
    combinations = 0
    for grid in grids:
        for axes, config in _cells({**common, **grid, "params": _params(common, grid)}, machine):
            for name, label in axes.items():
                labels.setdefault(name, {})[label] = None
            distinct.setdefault(config.model_dump_json(), DeclaredCell(axes, config))
            if (combinations := combinations + 1) > MAX_CELLS:
                raise UserError(f"its grids have more than {MAX_CELLS:,} combinations together.")
    excluded = [exclusion(table, labels) for table in tables_of(study, "exclude")]
    cells = tuple(cell for cell in distinct.values() if not is_excluded(cell.axes, excluded))
    if not cells:
        raise UserError("it declares no run: everything is excluded.")
    _check_labels(cells)
    entries = read_entries(study, path)
    check_seeds(entries, [cell.axes for cell in cells])
    names, registry = {cell.config.dataset for cell in cells}, load_plugins().datasets
    if all(name in registry for name in names):
        check_shifts(entries, names)
    check_groups(entries, labels.get("backbone", {}))
    check_stop(entries, study)
    return DeclaredStudy(**dict(entries), file=path, text=text, axes=_ordered(labels), cells=cells)


def _check_labels(cells: Sequence[DeclaredCell]) -> None:
    """Raise UserError if two different runs have the same label on every axis."""
    config_at: dict[tuple[tuple[str, str], ...], RunConfig] = {}
    for cell in cells:
        place = tuple(sorted(cell.axes.items()))
        other = config_at.setdefault(place, cell.config)
        if other is cell.config:
            continue
        a, b = ({**c.model_dump(exclude={"params"}), **c.params} for c in (other, cell.config))
        name = next(key for key in {**a, **b} if a.get(key) != b.get(key))
        labels = ", ".join(f"{axis} = {label!r}" for axis, label in place)
        raise UserError(
            f"two different runs are called {labels}; their {name} differs: {in_text(a.get(name))}"
            f" and {in_text(b.get(name))}. Give each a label of its own, or make {name} a list."
        )


def _settings(table: Table, what: str) -> dict[str, object]:
    """Return a table's settings under their singular names."""
    allowed = [*RunConfig.model_fields, *PLURALS, *STUDY_KEYS]
    settings: dict[str, object] = {}
    for key, value in table.items():
        name = PLURALS.get(key, key)
        if name in COMMAND_SETTINGS:
            raise UserError(
                f"{key!r} is not a setting of {what}; `bench study --help` shows the command's."
            )
        if name not in RunConfig.model_fields:
            raise UserError(f"unknown setting {key!r}.{did_you_mean(key, allowed)}")
        if name in settings:
            other = next(k for k in table if PLURALS.get(k, k) == name)
            raise UserError(f"{key!r} and {other!r} set the same thing. Keep one of the two.")
        settings[name] = value
    return settings


def _params(common: Table, grid: Table) -> dict[str, object]:
    params: dict[str, object] = {}
    for table in (common.get("params", {}), grid.get("params", {})):
        if not isinstance(table, dict):
            raise UserError("params must be a table of parameters for strategy and backbone.")
        params.update(table)
    return params


def _cells(grid: Table, machine: Table) -> Iterator[tuple[dict[str, str], RunConfig]]:
    """Yield the axis labels and the settings of every combination of a grid."""
    if "dataset" not in grid:
        raise UserError('which datasets? Write, for example, datasets = ["digits"].')
    shared, shared_params = dict[str, object](), dict[str, object]()
    axes: dict[str, list[Choice]] = {}
    params = grid["params"]
    assert isinstance(params, dict)
    for name, value in grid.items():
        if name in TABLE_AXES or (isinstance(value, list) and name != "params"):
            axes[name] = _choices(name, value if isinstance(value, list) else [value])
        elif name != "params":
            shared[name] = value
    for name, value in params.items():
        if isinstance(value, list):
            axes[name] = [Choice(in_text(item), {}, {name: item}) for item in value]
        else:
            shared_params[name] = value
    for name, choices in axes.items():
        if not choices:
            raise UserError(f"{name} is an empty list.")
    order = _ordered(axes)
    combinations = prod(map(len, axes.values()))
    if combinations > MAX_CELLS:  # checked before expansion: duplicates take time but add no run
        sizes = " × ".join(f"{len(axes[name]):,} {name}" for name in order if len(axes[name]) > 1)
        raise UserError(
            f"a grid has {combinations:,} combinations ({sizes}); at most {MAX_CELLS:,} are read."
        )
    for chosen in product(*(axes[name] for name in order)):
        settings = _merged(shared, [choice.settings for choice in chosen])
        params = _merged(shared_params, [choice.params for choice in chosen])
        config = make_config({**settings, **machine, "params": params})
        yield {n: choice.label for n, choice in zip(order, chosen, strict=True)}, config


def _choices(name: str, values: Sequence[object]) -> list[Choice]:
    choices: list[Choice] = []
    for value in values:
        if isinstance(value, dict) and name in TABLE_AXES:
            choices += _from_table(name, value)
        elif name == "dataset" and isinstance(value, str):
            names = expand_datasets([value])
            choices += [Choice(dataset, {name: dataset}, {}) for dataset in names]
        elif name == "corrupt" and isinstance(value, str):
            choices += [Choice(text, {name: text}, {}) for text in expand_corruptions(value)]
        else:
            choices.append(Choice(in_text(value), {name: value}, {}))
    return choices


def _from_table(axis: str, table: Table) -> Iterator[Choice]:
    """Yield the choices of a table: `{name = "race", draws = 50, label = "race, 50 draws"}`."""
    rest = {key: value for key, value in table.items() if key not in ("name", "label")}
    name, label = table.get("name"), table.get("label")
    if not isinstance(name, str):
        raise UserError(f'a table of {axis} has no name: write {{name = "…", …}}.')
    settings = {k: v for k, v in rest.items() if k in RunConfig.model_fields}
    params = {k: v for k, v in rest.items() if k not in settings}
    if axis == "dataset" and params:
        wrong = next(iter(params))
        raise UserError(f"unknown setting {wrong!r}.{did_you_mean(wrong, RunConfig.model_fields)}")
    names = expand_datasets([name]) if axis == "dataset" else [name]
    if label is None and len(names) == 1:
        label = " ".join([name, *(f"{k}={in_text(v)}" for k, v in rest.items() if k != "data_dir")])
    for value in names:
        shown = value if label is None else str(label)
        yield Choice(shown, {axis: value, **settings}, params)


def _merged(shared: Table, chosen: Sequence[Table]) -> dict[str, object]:
    """Return the shared settings overridden by those of the chosen values, one per axis."""
    merged: dict[str, object] = {}
    for table in chosen:
        for name, value in table.items():
            if name in merged:
                raise UserError(f"{name!r} is an axis, and a table of another axis sets it too.")
            merged[name] = value
    return {**shared, **merged}


def _ordered(names: Mapping[str, object]) -> tuple[str, ...]:
    middle = [name for name in names if name not in (*FIRST_AXES, *LAST_AXES)]
    return tuple(name for name in (*FIRST_AXES, *middle, *LAST_AXES) if name in names)
