"""Read the TOML file of a study, the user's or an installed one: the grid of runs it declares.

A list is an axis: each of its values is combined with each value of every other list. A list inside
a list is one value. Everything else is a setting that all runs share.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from itertools import product
from math import prod
from pathlib import Path

from pydantic import ValidationError

from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.discovery.queries import metric_specs
from bench.errors import UserError, did_you_mean, quoted, refusing
from bench.inputs.corruptions import expand_corruptions
from bench.inputs.data import slugify
from bench.machine.files import read_text, read_toml
from bench.running.parts.data import expand_datasets, is_path, registered
from bench.running.parts.model import find_backbone
from bench.running.parts.settings import (
    SETTINGS,
    RunConfig,
    Values,
    about,
    check_name,
    make_config,
    options_of,
)
from bench.running.study.values import (
    PLURALS,
    AxisLabels,
    Entries,
    Table,
    in_text,
    is_matched,
    matched_labels,
    tables_of,
)
from bench.store.formats.fields import first_problem
from bench.store.studies import STUDY, Published, find_study, study_folder

TABLE_AXES = ("dataset", "backbone", "strategy")  # axes whose values may be tables with a `name`
STUDY_KEYS = (*Entries.model_fields, "grid", "exclude", "published")
CHANGES = options_of("study")  # they change its runs
UNMEASURED = about("data", "record")  # they change no figure
REHEARSED = ("backbone", "strategy", "limit")  # they make figures incomparable, as parameters do
COMMAND_SETTINGS = ("results", *about("one run"))  # a study's file may not contain them
PUBLISHED_KEYS = ("source", "value", "seen", "metric", "images", "margin", "differs")
FIRST_AXES, LAST_AXES = ("dataset", "split", "backbone", "strategy"), ("template", "seed")
MAX_CELLS = 10_000
Figure = tuple[Mapping[str, frozenset[str]], Published]  # with the labels of its runs by axis


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
    published: Published | None = None  # published figure of the run, with what differs from it
    backbone: object = None  # equal for runs that can share a backbone; set by `check_cells`


class DeclaredStudy(Entries):
    """A study as its file declares it."""

    file: str  # path of the file, or name of the packaged study, as the user wrote it
    text: str  # content of the file
    axes: tuple[str, ...]  # names of the axes, in the order of tables
    cells: tuple[DeclaredCell, ...]  # distinct runs
    deviations: tuple[str, ...] = ()  # changes that options make to the file, in words


def read_study_file(
    study: str | Path, machine: Table, changes: Table | None = None
) -> DeclaredStudy:
    """Read and check a study without loading data (UserError).

    A name with a slash or the ending `.toml` is a file; any other is that of a packaged study.
    `machine` has settings of this machine, such as `device`, which override the file. `changes` are
    made to every run, see `apply_changes`. If they make figures incomparable, the study is a
    rehearsal with a name of its own.
    """
    name, changes = str(study), changes or {}
    file: Traversable
    if is_path(name) or name.endswith(".toml"):
        file, default = Path(name), slugify(name)
        if file.is_dir():
            images = f"To score its images: bench run {shlex.quote(name)}"
            raise UserError(f"{quoted(name)} is a folder, and a study is a TOML file. {images}")
        if not file.is_file():
            raise UserError(f"There is no file {quoted(name)}. A study is a TOML file.")
    else:
        spec = registered(load_plugins().studies, name)
        file, default = spec.file, spec.name
    table: Table = read_toml(file)
    with refusing(f"{name}: ", UserError, after=""):
        return declare(table, default, machine, changes, file=name, text=read_text(file))


def find_state(study: str, results: Path) -> Path:
    """Return the folder of a started study by its name or its file (UserError)."""
    if study in load_plugins().studies or (study.endswith(".toml") and Path(study).is_file()):
        declared = read_study_file(study, {})
        folder = study_folder(results, declared.name)
        if not (folder / STUDY.name).exists():
            raise UserError(f"The study {declared.name} was not started yet: bench study {study}")
        return folder
    return find_study(study, str(results))


def declare(
    study: Table, name: str, machine: Table, changes: Table, *, file: str, text: str
) -> DeclaredStudy:
    """Return the study that the content of a file declares, as `read_study_file`."""
    combinations, labels, deviations = _combinations(study, machine, changes)
    excluded = [
        matched_labels(table, labels, "[[exclude]]") for table in tables_of(study, "exclude")
    ]
    if not all(excluded):
        raise UserError("[[exclude]]: an empty table would exclude everything.")
    rehearsal = not {*REHEARSED, *_params(changes, {})}.isdisjoint(deviations.values())
    figures = _read_published(study, labels, list(deviations), rehearsal)
    distinct: dict[str, DeclaredCell] = {}
    for axes, config in combinations:
        if not any(is_matched(axes, matched) for matched in excluded):
            cell = DeclaredCell(axes, config, _figure_at(axes, figures))
            distinct.setdefault(config.model_dump_json(), cell)
    cells = tuple(distinct.values())
    if not cells:
        raise UserError("it declares no run: everything is excluded.")
    _check_labels(cells)
    entries = Entries.read(study, name)
    entries.check_seeds([cell.axes for cell in cells])
    names, registry = {cell.config.dataset for cell in cells}, load_plugins().datasets
    if all(name in registry for name in names):
        entries.check_shifts(names)
    entries.check_stop(study, any(cell.config.limit for cell in cells))
    if rehearsal:
        entries = entries.model_copy(update={"name": f"{entries.name}-rehearsal"})
    return DeclaredStudy(
        **dict(entries),
        file=file,
        text=text,
        axes=_ordered({axis: None for cell in cells for axis in cell.axes}),
        cells=cells,
        deviations=tuple(deviations),
    )


def _read_published(
    study: Table, labels: AxisLabels, deviations: Sequence[str], rehearsal: bool
) -> list[Figure]:
    """Return the published figures of a study's file, `[published]` or several `[[published]]`.

    `labels` has the labels on each axis. `deviations` are those of the user's changes, which may
    make it a rehearsal; see `Published`. Raises UserError if a table is invalid.
    """
    only = study.get("published")
    figures: list[Figure] = []
    metrics = [name for name, metric in metric_specs().items() if metric.in_summaries]
    for table in [only] if isinstance(only, dict) else tables_of(study, "published"):
        stated = {key: value for key, value in table.items() if key in PUBLISHED_KEYS}
        axes = {key: value for key, value in table.items() if key not in PUBLISHED_KEYS}
        try:
            figure = Published.model_validate(stated)
        except ValidationError as error:
            raise UserError(f"[published]: {first_problem(error)}.") from None
        if figure.metric not in metrics:
            close = did_you_mean(figure.metric, metrics)
            raise UserError(f"[published]: no run has a metric {figure.metric!r}.{close}")
        if deviations:
            update = {"differs": [*figure.differs, *deviations], "rehearsal": rehearsal}
            figure = figure.model_copy(update=update)
        figures.append((matched_labels(axes, labels, "[published]", PUBLISHED_KEYS), figure))
    return figures


def _figure_at(axes: Mapping[str, str], figures: Sequence[Figure]) -> Published | None:
    """Return the figure of the run with these labels, if any; UserError if there are several."""
    matching = [figure for labels, figure in figures if is_matched(axes, labels)]
    if len(matching) > 1:
        raise UserError(f"Several tables [[published]] match the run {', '.join(axes.values())}.")
    return matching[0] if matching else None


def _combinations(
    study: Table, machine: Table, changes: Table
) -> tuple[list[tuple[dict[str, str], RunConfig]], AxisLabels, dict[str, str]]:
    """Return the changed combinations of all grids, the labels, and the deviations.

    The labels on each axis include those of the file without the changes, so that tables which
    refer to them stay valid. The deviations map words to the name of the setting.
    """
    common = _settings({k: v for k, v in study.items() if k not in STUDY_KEYS}, "a study")
    combinations: list[tuple[dict[str, str], RunConfig]] = []
    labels: dict[str, dict[str, None]] = {}
    deviations: dict[str, str] = {}
    for table in [_settings(table, "a grid") for table in tables_of(study, "grid")] or [{}]:
        grid: Table = {**common, **table, "params": _params(common, table)}
        declared = made = list(_cells(grid, machine))
        if changes:
            grid, texts = apply_changes(grid, changes, bool(machine.get("offline")))
            deviations |= {words: setting for setting, words in texts.items()}
            made = list(_cells(grid, {**machine, **changes}))
        for axes, _ in [*declared, *made]:
            for axis, label in axes.items():
                labels.setdefault(axis, {})[label] = None
        combinations += made
        if len(combinations) > MAX_CELLS:
            raise UserError(f"its grids have more than {MAX_CELLS:,} combinations together.")
    return combinations, labels, deviations


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


def _settings(table: Table, what: str) -> Values:
    """Return a table's settings under their singular names."""
    settings: Values = {}
    for key, value in table.items():
        name = PLURALS.get(key, key)
        check_name(name, value, (*PLURALS, *STUDY_KEYS))
        if name in COMMAND_SETTINGS:
            raise UserError(
                f"{key!r} is not a setting of {what}; `bench study --help` shows the command's."
            )
        if name in settings:
            other = next(k for k in table if PLURALS.get(k, k) == name)
            raise UserError(f"{key!r} and {other!r} set the same thing. Keep one of the two.")
        settings[name] = value
    return settings


def _params(common: Table, grid: Table) -> Values:
    params: Values = {}
    for table in (common.get("params", {}), grid.get("params", {})):
        if not isinstance(table, dict):
            raise UserError("params must be a table of parameters for strategy and backbone.")
        params.update(table)
    return params


def _cells(grid: Table, machine: Table) -> Iterator[tuple[dict[str, str], RunConfig]]:
    """Yield the axis labels and the settings of every combination of a grid."""
    if "dataset" not in grid:
        raise UserError('which datasets? Write, for example, datasets = ["digits"].')
    shared, shared_params = Values(), Values()
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
        params |= _params(machine, {})
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
    if axis == "dataset":
        for unknown in params:
            check_name(unknown, None)
    names = expand_datasets([name]) if axis == "dataset" else [name]
    if label is None and len(names) == 1:
        label = " ".join([name, *(f"{k}={in_text(v)}" for k, v in rest.items() if k != "data_dir")])
    for value in names:
        shown = value if label is None else str(label)
        yield Choice(shown, {axis: value, **settings}, params)


def _merged(shared: Table, chosen: Sequence[Table]) -> Values:
    """Return the shared settings overridden by those of the chosen values, one per axis."""
    merged: Values = {}
    for table in chosen:
        for name, value in table.items():
            if name in merged:
                raise UserError(f"{name!r} is an axis, and a table of another axis sets it too.")
            merged[name] = value
    return {**shared, **merged}


def _ordered(names: Mapping[str, object]) -> tuple[str, ...]:
    middle = [name for name in names if name not in (*FIRST_AXES, *LAST_AXES)]
    return tuple(name for name in (*FIRST_AXES, *middle, *LAST_AXES) if name in names)


def apply_changes(grid: Table, changes: Table, offline: bool) -> tuple[Table, dict[str, str]]:
    """Return the settings of a grid with the user's changes, and name → deviation in words.

    Settings and parameters that belong to a replaced backbone or strategy are dropped. Raises
    UserError for an unknown backbone.
    """
    params, new_params = grid["params"], changes.get("params", {})
    assert isinstance(params, Mapping) and isinstance(new_params, Mapping)
    own, new = ({k: v for k, v in table.items() if k != "params"} for table in (grid, changes))
    deviations = _deviations(own, new) | _deviations(params, new_params)
    if "strategy" in deviations:
        params = {name: value for name, value in params.items() if name in _of_backbones()}
    if "backbone" in deviations:
        named = {name: new.get(name) for name in ("backbone", "weights")}
        spec = find_backbone(make_config({"dataset": "-", "offline": offline, **named})).spec
        foreign = _foreign(spec, own, params)
        unfit = [name for name in (*own, *params) if name in foreign]
        deviations |= {name: f"{name}: not a setting of this backbone" for name in unfit}
        parts = {name for name in about("network") if SETTINGS[name].identity == "content"}
        own = {k: v for k, v in own.items() if k not in parts | foreign}
        params = {k: v for k, v in params.items() if k not in foreign}
    return {**own, **new, "params": {**params, **new_params}}, deviations


def _of_backbones() -> set[str]:
    return {name for spec in load_plugins().backbones for name in spec.parameters}


def _foreign(spec: BackboneSpec, own: Table, params: Table) -> set[str]:
    """Return the settings and parameters of a grid that a backbone does not use.

    An axis that runs share is none of them: its runs become one.
    """
    shared = {n for n, v in own.items() if isinstance(v, list) and len(v) > 1}
    shared = {name for name in shared if SETTINGS[name].shared}
    other_kind = {name for name in own if not SETTINGS[name].is_for(spec)} - shared
    passed = {name for name in own if SETTINGS[name].passed_to == spec.kind}
    return other_kind | (passed | (_of_backbones() & params.keys())) - {*spec.parameters}


def _deviations(before: Table, after: Table) -> dict[str, str]:
    usual = {"limit": "all images"}
    return {
        name: f"{name}: {in_text(value)} instead of "
        + (in_text(before[name]) if name in before else usual.get(name, "the default"))
        for name, value in after.items()
        if name not in UNMEASURED and in_text(value) != in_text(before.get(name))
    }
