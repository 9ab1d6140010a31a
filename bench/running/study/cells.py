"""The runs of a study, checked: each once, without settings that it does not read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from bench.errors import UserError
from bench.running.executors.cluster import check_executor
from bench.running.parts.decision import of_backbone
from bench.running.preparing.others import name_fit_split
from bench.running.resolve import Resolved, resolve
from bench.running.scorers import kind_of
from bench.running.settings import WHY, RunConfig, check_scope, without_unread
from bench.running.study.file import DeclaredCell, DeclaredStudy


def check_cells(declared: DeclaredStudy) -> tuple[DeclaredStudy, list[str]]:
    """Return the study without settings that a run ignores, and a note on each (UserError).

    Cells that differ only in such settings are one run, without a label on their axes.
    """
    checked: list[Resolved] = []
    for cell in declared.cells:
        with _naming_run(declared, cell):
            check_executor(cell.config)
            resolved = resolve(cell.config)
            name_fit_split(resolved, None)
            checked.append(resolved)
    scorers = {resolved.backbone.scorer for resolved in checked}
    same: dict[str, list[DeclaredCell]] = {}
    notes = dict[str, None]()
    for cell, resolved in zip(declared.cells, checked, strict=True):
        spec, name = resolved.backbone, resolved.backbone_name
        config, ignored = without_unread(cell.config, spec.scorer, scorers)
        with _naming_run(declared, cell):
            check_scope(config, spec, name)
        same.setdefault(_what_is_read(config, resolved), []).append(replace(cell, config=config))
        for setting in ignored:
            notes[f"The runs of backbone {name!r} ignore {setting}: it {WHY[spec.scorer]}."] = None
    cells = []
    for first, *others in same.values():
        ignored = [n for n, label in first.axes.items() if any(c.axes[n] != label for c in others)]
        axes = {name: label for name, label in first.axes.items() if name not in ignored}
        cells.append(replace(first, axes=axes))
        if others:
            text = f"One run instead of {len(others) + 1}, which does not depend on"
            notes[f"{in_words(axes)}: {text} {' or '.join(ignored)}."] = None
    return replace(declared, cells=tuple(cells)), list(notes)


def _what_is_read(config: RunConfig, resolved: Resolved) -> str:
    """Return the settings of a run that its backbone reads: a classifier no strategy, no seed."""
    if kind_of(resolved).one_draw:
        own = of_backbone(config, resolved.backbone, resolved.decider.spec)
        config = config.model_copy(update={"strategy": None, "seed": 0, "params": own})
    return config.model_dump_json()


@contextmanager
def _naming_run(declared: DeclaredStudy, cell: DeclaredCell) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{declared.file}: {error}\nThis is of the run {in_words(cell.axes)}; [[exclude]]"
            " leaves combinations out, and a [[grid]] of its own has other settings."
        ) from None


def in_words(axes: Mapping[str, str]) -> str:
    """Return a cell's labels: `dataset digits, seed 0`."""
    return ", ".join(f"{name} {label}" for name, label in axes.items())
