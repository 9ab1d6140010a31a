"""`bench list`. List datasets, models (backbones), strategies, ...

Group: See what is there, 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from bench.boards.formats import assignments
from bench.cli.output import next_steps, print_json, say
from bench.cli.runs import command as runs
from bench.cli.specs import (
    BackboneRow,
    CollectionRow,
    DatasetRow,
    ProtocolRow,
    Row,
    StrategyRow,
)
from bench.contracts.protocols import ProtocolSpec
from bench.contracts.specs import BackboneSpec, DatasetSpec, Spec, provenance
from bench.discovery.loading import load_plugins
from bench.discovery.registry import Registry, SpecT

BACKBONE_COLUMNS = ("name", "family", "size", "resolution", "licence", "trained_on")
_HEADS = {"resolution": "pixels", "trained_on": "trained on"}
_NAME = click.argument("name", required=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")


@click.group()
def command() -> None:
    """List datasets, collections, backbones, strategies, views, protocols or runs."""


@command.command()
@_NAME
@_JSON
def datasets(name: str | None, as_json: bool) -> None:
    """List the datasets; with NAME, show one with its classes and parameters."""
    _list(
        load_plugins().datasets, DatasetRow.of_dataset, name, as_json, ("name", "classes", "splits")
    )


@command.command()
@_NAME
@_JSON
def backbones(name: str | None, as_json: bool) -> None:
    """List the backbones; with NAME, show one with its parameters."""
    known = load_plugins().backbones
    _list(known, BackboneRow.of_backbone, name, as_json, BACKBONE_COLUMNS)
    if name is None and not as_json:
        _print_exposure(known)


@command.command()
@_NAME
@_JSON
def strategies(name: str | None, as_json: bool) -> None:
    """List the strategies; with NAME, show one with its parameters, as --set takes them."""
    _list(load_plugins().strategies, StrategyRow.of, name, as_json, ("name",))


@command.command()
@_NAME
@_JSON
def views(name: str | None, as_json: bool) -> None:
    """List the views of an image, as --views takes them; with NAME, show one."""
    _list(load_plugins().views, StrategyRow.of, name, as_json, ("name",))


@command.command()
@_NAME
@_JSON
def collections(name: str | None, as_json: bool) -> None:
    """List the collections of datasets; with NAME, show one."""
    _list(load_plugins().collections, CollectionRow.of, name, as_json, ("name", "datasets"))


@command.command()
@_NAME
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@_JSON
def protocols(name: str | None, results: str, as_json: bool) -> None:
    """List the published experiments that `bench reproduce` repeats; with NAME, show one."""
    from bench.store.marks import reproduced

    runs = reproduced(Path(results))

    def row(spec: ProtocolSpec) -> ProtocolRow:
        return ProtocolRow.of_protocol(spec, runs.get(spec.name, []))

    _list(load_plugins().protocols, row, name, as_json, ("name", "published", "runs"))


command.add_command(runs, "runs")


def _list(
    registry: Registry[SpecT],
    describe: Callable[[SpecT], Row],
    name: str | None,
    as_json: bool,
    columns: tuple[str, ...],
) -> None:
    """List the specs of a registry, or show one of them.

    Args:
        registry: the specs.
        describe: makes the row of a spec, which `--json` prints.
        name: only this one, in full.
        as_json: print JSON.
        columns: what the table shows, and the summary.
    """
    if name is not None:
        spec = registry.get(name)
        if as_json:
            print_json(describe(spec).plain())
        else:
            _show(spec, describe(spec).plain())
        return
    rows = [describe(spec).plain() for spec in registry]
    if as_json:
        print_json(rows)
        return
    from bench.render.tables import table

    shown = (*columns, "summary")
    table(
        [_HEADS.get(column, column) for column in shown],
        [[_text(column, row[column], row) for column in shown] for row in rows],
        optional=["summary"] if len(columns) > 3 else [],
        right={"size", "pixels"},
    )
    if rows:
        kind = click.get_current_context().info_name
        next_steps(("see all of one", f"bench list {kind} {rows[0]['name']}"))


def _print_exposure(backbones: Iterable[BackboneSpec]) -> None:
    """Print what is known of the training data, once for all backbones that share it."""
    from bench.render.tables import table

    of: dict[str, list[str]] = {}
    for spec in backbones:
        if spec.exposure:
            of.setdefault(spec.exposure, []).append(spec.name)
    say("")
    table(["backbones", "exposure"], [[", ".join(names), said] for said, names in of.items()])


def _show(spec: Spec, described: Mapping[str, Any]) -> None:
    """Print one spec: what it is, and each parameter with its default and its meaning."""
    from bench.render.tables import table

    say(f"{spec.label}: {spec.summary}")
    left_out = ("name", "summary", "parameters", "help")
    facts = [
        [key.replace("_", " "), _text(key, value, described)]
        for key, value in described.items()
        if key not in left_out and value not in (None, {}, [], "", False)
    ]
    if isinstance(spec, DatasetSpec) and spec.classes:
        facts.append(["class names", ", ".join(spec.classes)])
    table(["", ""], facts)
    if spec.parameters:
        say("")
        rows = [
            [key, _value(parameter.default), parameter.help]
            for key, parameter in spec.parameters.items()
        ]
        table(["parameter", "default", "meaning"], rows)


def _text(column: str, value: Any, row: Mapping[str, Any]) -> str:
    if column == "summary" and row.get("unverified"):
        return f"{value} (unverified)"
    if column == "trained_on":
        return provenance(value)
    if column in ("size", "encoder_size") and value:
        return f"{value / 1e9:.1f}B" if value >= 1e9 else f"{value / 1e6:.0f}M"
    if column == "flops" and value:
        giga = value / 1e9
        return f"{giga:{',.0f' if giga >= 100 else '.3g'}} GFLOP per evaluation"
    if column == "gated" and value:
        return "yes: accept the licence on the Hub first"
    return assignments(value) if isinstance(value, Mapping) else _value(value)


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
