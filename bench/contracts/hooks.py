"""The plugin hooks. A plugin is a module that an entry point of the group `bench` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

hookspec = pluggy.HookspecMarker("bench")
hookimpl = pluggy.HookimplMarker("bench")


@hookspec
def register_datasets(register: Callable[..., None]) -> None:
    """Call `register(name, target=…, …)` once per dataset, with the fields of `DatasetSpec`."""


@hookspec
def register_backbones(register: Callable[..., None]) -> None:
    """Call `register(name, target=…, …)` once per backbone, with the fields of `BackboneSpec`."""


@hookspec
def register_strategies(register: Callable[..., None]) -> None:
    """Call `register(name, target=…, …)` once per strategy, with the fields of `StrategySpec`."""


@hookspec
def register_views(register: Callable[..., None]) -> None:
    """Call `register(name, target=…, …)` once per kind of views, with the fields of `ViewsSpec`."""


@hookspec
def register_executors(register: Callable[..., None]) -> None:
    """Call `register(name, target=…, …)` once per executor, with the fields of `ExecutorSpec`."""


@hookspec
def register_collections(register: Callable[..., None]) -> None:
    """Call `register(name, datasets=(…), …)` once per collection of datasets."""


@hookspec
def register_studies(register: Callable[..., None]) -> None:
    """Call `register(name, file=…)` once per packaged study, with the fields of `StudySpec`."""


@hookspec
def register_metrics(register: Callable[..., None]) -> None:
    """Call `register(name, target=…, …)` once per metric, with the fields of `MetricSpec`."""


@hookspec
def register_exporters(register: Callable[..., None]) -> None:
    """Call `register(name, target=…, …)` once per exporter, with the fields of `ExporterSpec`."""


@hookspec
def register_errata(register: Callable[..., None]) -> None:
    """Call `register(name, what=…, …)` once per erratum, with the fields of `ErratumSpec`."""


@hookspec
def register_commands(cli: click.Group) -> None:
    """Add commands with `cli.add_command`. Do not import anything heavy here."""


@hookspec
def run_started(manifest: Mapping[str, Any], done: int, total: int, correct: int) -> None:
    """Called when scoring begins; `done` of `total` images are decided, `correct` of them right."""


@hookspec
def sample_scored(record: Mapping[str, Any]) -> None:
    """Called when an image is decided and its line is on disk; `record` is that line."""


@hookspec
def question_checked(question: str, images: int, p: float | None) -> None:
    """Called when the first `images` images do not answer the question yet.

    `p` is the p-value, or None if the question has none.
    """


@hookspec
def run_finished(summary: Mapping[str, Any]) -> None:
    """Called when the run is complete; `summary` is the object that `--json` prints."""
