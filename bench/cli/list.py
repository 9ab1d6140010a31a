"""`bench list`."""

from __future__ import annotations

from typing import Any

import click

from bench.cli.output import print_json
from bench.discovery.loading import load_plugins
from bench.inputs.weights import locate

# What a person sees of each listing; --json has everything.
SHOWN = {
    "datasets": ("name", "classes", "splits", "summary"),
    "backbones": ("name", "trained_on", "summary"),
    "strategies": ("name", "parameters", "summary"),
}


@click.command()
@click.argument("kind", type=click.Choice(["datasets", "backbones", "strategies"]))
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
def command(kind: str, as_json: bool) -> None:
    """List what is registered: datasets, backbones or strategies."""
    rows = {"datasets": _datasets, "backbones": _backbones, "strategies": _strategies}[kind]()
    if as_json:
        print_json(rows)
        return
    from bench.boards.formats import provenance
    from bench.render.console import table

    for row in rows:
        if kind == "backbones":
            row["trained_on"] = provenance(row["trained_on"])
    table(
        [column.replace("_", " ") for column in SHOWN[kind]],
        [[_text(row[column]) for column in SHOWN[kind]] for row in rows],
    )


def _datasets() -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "classes": len(spec.classes) if spec.classes else None,
            "splits": dict(spec.splits),
            "evaluated": spec.split,
            "template": spec.template,
            "version": spec.version,
            "summary": spec.summary,
        }
        for spec in load_plugins().datasets
    ]


def _backbones() -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "kind": spec.scorer,
            "weights": locate(spec.weights) if spec.weights else None,
            "trained_on": spec.trained_on,
            "version": spec.version,
            "summary": spec.summary,
        }
        for spec in load_plugins().backbones
    ]


def _strategies() -> list[dict[str, Any]]:
    return [
        {
            "name": spec.name,
            "parameters": {key: value.default for key, value in spec.parameters.items()},
            "version": spec.version,
            "summary": spec.summary,
        }
        for spec in load_plugins().strategies
    ]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return " ".join(f"{key}={_text(item)}" for key, item in value.items())
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
