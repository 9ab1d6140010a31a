"""The runs of a study, checked and without duplicates, and the sum of their plans (`estimate`)."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from pydantic import Field

from bench.errors import UserError, refusing
from bench.machine.speeds import PEAKS
from bench.running.borrowed import fit_data
from bench.running.estimate import Lack, make_plan
from bench.running.parts.decision import backbone_params
from bench.running.parts.declaration import option
from bench.running.parts.machine import check_executor
from bench.running.parts.record import check_trackers
from bench.running.parts.settings import SETTINGS, Names, RunConfig
from bench.running.prepare import check_effect, resolve, without_effect
from bench.running.study.file import DeclaredCell, DeclaredStudy
from bench.store.formats.fields import Count, Document
from bench.store.studies import Published


def check_cells(declared: DeclaredStudy) -> tuple[DeclaredStudy, list[str]]:
    """Return the study without settings that a run ignores, and a note on each (UserError).

    Cells that differ only in ignored settings become one run, which has no label on those axes.
    """
    checked = [_names_of(declared, cell) for cell in declared.cells]
    unused = [without_effect(names) for names in checked]
    used = {
        n for of, no in zip(checked, unused, strict=True) for n in {*of.config.changed()} - {*no}
    }
    axes = {n for n in SETTINGS if len({repr(getattr(c.config, n)) for c in declared.cells}) > 1}
    same: dict[str, list[DeclaredCell]] = {}
    changes = "; ".join(declared.deviations)
    notes = dict.fromkeys([f"Options change the study: {changes}."] if changes else [])
    for cell, names, without in zip(declared.cells, checked, unused, strict=True):
        ignored = [name for name in without if SETTINGS[name].shared and name in used | axes]
        config = _without(declared, cell, names, ignored)
        kept = replace(cell, config=config, backbone=names.backbone_key)
        same.setdefault(_effective_settings(config, names), []).append(kept)
        who = f"The runs of backbone {names.source.name!r} ignore"
        told = [name for name in ignored if name not in axes]
        notes |= {f"{who} {name}: {option(name)} {without[name]}": None for name in told}
    cells = tuple(_one_run(*alike, notes=notes) for alike in same.values())
    return declared.model_copy(update={"cells": cells}), list(notes)


def _without(
    declared: DeclaredStudy, cell: DeclaredCell, names: Names, ignored: Sequence[str]
) -> RunConfig:
    """Return the settings of a run without those that it ignores; others must have an effect."""
    defaults = {name: RunConfig.model_fields[name].default for name in ignored}
    config = cell.config.model_copy(update=defaults)
    with _naming_run(declared, cell):
        check_effect(replace(names, config=config))
    return config


def _one_run(first: DeclaredCell, *others: DeclaredCell, notes: dict[str, None]) -> DeclaredCell:
    """Return the run of cells that are alike, with the labels that they share; a note names it."""
    differ = [n for n, label in first.axes.items() if any(c.axes[n] != label for c in others)]
    labels = {name: label for name, label in first.axes.items() if name not in differ}
    if others:
        text = f"One run instead of {len(others) + 1}, which does not depend on"
        notes[f"{in_words(labels)}: {text} {' or '.join(differ)}."] = None
    return replace(first, axes=labels)


def _names_of(declared: DeclaredStudy, cell: DeclaredCell) -> Names:
    with _naming_run(declared, cell):
        check_executor(cell.config)
        check_trackers(cell.config)
        names = resolve(cell.config)
        if names.backbone.learns:
            fit_data(names, None)
        return names


def _effective_settings(config: RunConfig, names: Names) -> str:
    """Return the settings of a run that affect it. A classifier has no strategy."""
    if names.backbone.one_draw:
        own = backbone_params(config, names.backbone, names.decider.spec)
        config = config.model_copy(update={"strategy": None, "params": own})
    return config.model_dump_json()


def _naming_run(declared: DeclaredStudy, cell: DeclaredCell) -> AbstractContextManager[None]:
    advice = (
        f"\nIn the run {in_words(cell.axes)}. [[exclude]] leaves out combinations, and a separate"
        " [[grid]] can have other settings."
    )
    return refusing(f"{declared.file}: ", UserError, after=advice)


def in_words(axes: Mapping[str, str]) -> str:
    """Format a cell's labels: `dataset digits, seed 0`."""
    return ", ".join(f"{name} {label}" for name, label in axes.items())


class PlannedCell(Document):
    """One run of a study, and what it will cost from here on."""

    axes: dict[str, str]
    run_id: str | None = None  # None if data or weights were not read
    images: Count | None = None
    images_to_score: Count | None = None  # images that are not stored yet; 0 if the run is complete
    evaluation_equivalents: Count | None = None  # 0 for a classifier
    passes: Count = 0  # passes of a classifier, one per image
    tflop: float | None = None
    seconds: float | None = None  # None if the backbone's speed on this machine is unknown
    seconds_elsewhere: dict[str, float] | None = None  # see `Plan.seconds_elsewhere`
    at_most: bool = False
    """Whether the cost is an upper bound, because the strategy's cost depends on the image."""
    published: Published | None = None  # published figure to compare with, if there is one
    error: str | None = None  # why the run is invalid
    missing: list[str] = Field(default_factory=list)
    """Why this machine cannot make the run; see `Plan.missing`."""
    lacks: list[Lack] = Field(default_factory=list)  # which of these are absent

    @property
    def there(self) -> bool:
        """Whether the run is complete in the results folder."""
        return self.images_to_score == 0


class PlannedStop(Document):
    """Number of images that a study with a stopping rule scores, summed over its runs."""

    least: Count  # if it stops after the first round
    most: Count  # if it stops only after the last image


class StudyPlan(Document):
    """Every run of a study, and the cost of those that are not complete."""

    name: str
    axes: list[str]
    pilot: Count
    cells: list[PlannedCell]
    runs: Count
    runs_there: Count
    runs_with_errors: Count
    runs_missing: Count  # runs whose data, weights or device this machine lacks
    images_to_score: Count
    evaluation_equivalents: Count  # without passes of classifiers
    passes: Count  # of all classifiers
    tflop: float | None  # None unless known for every run
    seconds: float  # sum over the runs with a known speed
    seconds_elsewhere: dict[str, float] | None
    """See `Plan.seconds_elsewhere`; summed over the runs with known operations."""
    at_most: bool  # whether the cost of at least one run is an upper bound
    runs_without_time: Count  # runs without a known speed
    runs_without_operations: Count  # runs without known operations
    warnings: list[str]
    stop: PlannedStop | None = None  # None if every run scores all of its images

    def problems(self) -> dict[str, list[PlannedCell]]:
        """Return the runs that cannot be made, by reason."""
        problems: dict[str, list[PlannedCell]] = {}
        for cell in self.cells:
            for text in [*filter(None, [cell.error]), *cell.missing]:
                problems.setdefault(text, []).append(cell)
        return problems


def plan_study(declared: DeclaredStudy) -> StudyPlan:
    """Return the plan of every run (UserError, as `check_cells`)."""
    declared, notes = check_cells(declared)
    warnings = dict.fromkeys(notes)
    cells = [_plan_cell(cell, warnings) for cell in declared.cells]
    left = [cell for cell in cells if not cell.there and cell.error is None]

    def known(name: str) -> list[Any]:
        values = (getattr(cell, name) for cell in left)
        return [value for value in values if value is not None]

    tflop, seconds, elsewhere = map(known, ("tflop", "seconds", "seconds_elsewhere"))
    return StudyPlan(
        name=declared.name,
        axes=list(declared.axes),
        pilot=declared.pilot,
        cells=cells,
        runs=len(cells),
        runs_there=sum(cell.there for cell in cells),
        runs_with_errors=sum(cell.error is not None for cell in cells),
        runs_missing=sum(bool(cell.missing) for cell in cells),
        images_to_score=sum(known("images_to_score")),
        evaluation_equivalents=sum(known("evaluation_equivalents")),
        passes=sum(known("passes")),
        tflop=sum(tflop) if len(tflop) == len(left) else None,
        seconds=sum(seconds),
        seconds_elsewhere={name: sum(own[name] for own in elsewhere) for name in PEAKS}
        if elsewhere
        else None,
        runs_without_operations=len(left) - len(elsewhere),
        at_most=any(known("at_most")),
        runs_without_time=len(left) - len(seconds),
        warnings=list(warnings),
        stop=_stop(declared, cells),
    )


def _plan_cell(cell: DeclaredCell, warnings: dict[str, None]) -> PlannedCell:
    """Return the plan of one run, and add its warnings."""
    axes = dict(cell.axes)
    try:
        plan = make_plan(cell.config)
    except UserError as error:
        return PlannedCell(axes=axes, error=str(error))
    warnings.update(dict.fromkeys(w for w in plan.warnings if w not in plan.missing))
    fields = plan.model_dump(include=set(PlannedCell.model_fields))
    if cell.published is not None:
        fields["published"] = cell.published.compared(plan.images)
    cost = "passes" if plan.classifier else "evaluation_equivalents"
    return PlannedCell(axes=axes, **{**fields, "evaluation_equivalents": 0, cost: plan.evaluations})


def _stop(declared: DeclaredStudy, cells: Sequence[PlannedCell]) -> PlannedStop | None:
    totals = [cell.images for cell in cells]
    if declared.stop is None or None in totals:
        return None
    least = sum(min(declared.first_round, total or 0) for total in totals)
    return PlannedStop(least=least, most=sum(total or 0 for total in totals))
