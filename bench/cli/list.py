"""`bench list`. List datasets, models (backbones), strategies, ...

Group: See what is there, 1.

`bench runs`. List the stored runs.

Group: Look at results, 7.
"""

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import click

from bench.cli.command import Command, Results, Tags, command, end_with_json
from bench.cli.output import next_steps, run_name, say
from bench.contracts.specs import BackboneSpec, DatasetSpec, Spec, StudySpec, provenance
from bench.discovery.loading import load_plugins
from bench.discovery.registry import Registry
from bench.errors import UserError
from bench.inputs.weights import locate
from bench.machine.libraries import JsonValue
from bench.reports.facts import assignments, value_text

# Fields of specs that listings and JSON show, besides name, summary, parameters and version.
_DATASET_FACTS = (
    "classes splits evaluated items template backbone homepage source unverified templates groups"
    " licence citation"
)
_BACKBONE_FACTS = (
    "kind weights revision trained_on family size encoder_size licence gated resolution dtype flops"
    " template exposure telling requires pipelines plan strategy strategy_parameters"
)
_METRIC_FACTS = "words needs range direction unit mean_over_images in_summaries column"
_EXPORTER_FACTS = "repository several"
_STUDY_FACTS = "file datasets published source differs"
_HEADS = {"resolution": "pixels", "trained_on": "trained on"}


@click.group()
def list_command() -> None:
    """List datasets, backbones, strategies, metrics, studies and more."""


@command("runs")
def runs_command(
    *,
    dataset: Annotated[str | None, "Only this dataset."],
    tags: Tags,
    wide: Annotated[bool, "One column per fact, for a wide terminal."],
    results: Results,
) -> None:
    """List the stored runs, incomplete and unreadable ones too.

    The settings that distinguish a run from others of the same dataset, backbone and strategy are
    shown below its id.
    """
    from bench.reports.inventory import print_runs, stored_runs
    from bench.store.runs import check_stored

    stored = stored_runs(Path(results))
    datasets = {*load_plugins().datasets.by_name(), *(row.dataset for row in stored if row.dataset)}
    check_stored("dataset", [dataset] if dataset else [], datasets)
    check_stored("tag", tags, {tag for row in stored for tag in row.tags})
    rows = [r for r in stored if dataset in (None, r.dataset) and {*tags} <= {*r.tags}]
    end_with_json([row.plain() for row in rows])
    if rows:
        print_runs(rows, wide)
        newest = max(rows, key=lambda row: row.created or "")
        next_steps(("see one of them", f"bench show {run_name(Path(newest.path), results)}"))
    else:
        which = f" of {dataset}" if dataset else ""
        which += f" with the tag{'s' * (len(tags) > 1)} {' and '.join(tags)}" if tags else ""
        say(f"There is no run{which} in {results}. `bench run digits` makes the first.")


@list_command.command(cls=Command)
def recordings(*, results: Results) -> None:
    """List recordings, runs that kept every error so that strategies can be replayed on them.

    Folders that `bench export --format errors` wrote are listed, too.
    """
    from bench.reports.inventory import stored_recordings

    rows = stored_recordings(Path(results))
    end_with_json([row.plain() | {"bytes_per_image": row.bytes_per_image} for row in rows])
    from bench.reports.terminal.tables import print_rows

    lines = [
        [
            run_name(Path(row.path), results),
            f"{row.images:,} of {row.n_asked:,}",
            row.prompts,
            row.draws,
            f"{row.bytes / 1e6:.1f} MB",
            f"{row.bytes_per_image / 1e3:.1f} kB",
        ]
        for row in rows
    ]
    if not rows:
        say(f"There is no recording in {results}. `--strategy full --save-errors` makes one.")
        return
    print_rows(["recording", "images", "prompts", "draws", "size", "per image"], lines)
    next_steps(("replay every strategy on one", f"bench sweep {lines[0][0]}"))


def _spec_json(spec: Spec, facts: str = "", **values: Any) -> dict[str, JsonValue]:
    """Return a spec with its fields `facts` for JSON; `values` replace those of these fields."""
    content = {name: values.get(name, getattr(spec, name, None)) for name in facts.split()}
    return {
        "name": spec.name,
        **{name: dict(v) if isinstance(v, Mapping) else v for name, v in content.items()},
        "parameters": {name: value.default for name, value in spec.parameters.items()},
        "help": {name: value.help for name, value in spec.parameters.items()},
        "version": spec.version,
        "summary": spec.summary,
    }


def _dataset_json(spec: DatasetSpec) -> dict[str, JsonValue]:
    return _spec_json(
        spec,
        _DATASET_FACTS,
        classes=len(spec.classes) if spec.classes else None,
        evaluated=spec.split,
        template=None if spec.items else spec.template,
        templates={name: len(texts) for name, texts in spec.templates.items()},
    )


def _backbone_json(spec: BackboneSpec) -> dict[str, JsonValue]:
    weights = locate(spec.weights) if spec.weights else None
    return _spec_json(spec, _BACKBONE_FACTS, kind=spec.scorer, weights=weights)


def _study_json(spec: StudySpec) -> dict[str, JsonValue]:
    from bench.running.study.file import read_study_file

    facts = partial(_spec_json, spec, _STUDY_FACTS, file=str(spec.file))
    try:
        declared = read_study_file(spec.name, {})
    except UserError as error:
        return {**facts(), "summary": f"invalid: {error}"}
    figures = [cell.published for cell in declared.cells if cell.published is not None]
    content = facts(
        datasets=list(dict.fromkeys(cell.config.dataset for cell in declared.cells)),
        published=[figure.value for figure in figures if figure.value is not None],
        source=list(dict.fromkeys(figure.source for figure in figures)),
        differs=list(dict.fromkeys(text for figure in figures for text in figure.differs)),
    )
    return {**content, "summary": declared.summary}


def _print_specs(
    kind: str, columns: str, to_json: Callable[[Any], dict[str, JsonValue]], name: str | None
) -> None:
    """List the specs of a registry with name, `columns` and summary, or show one spec in full."""
    registry: Registry[Any] = getattr(load_plugins(), kind)
    if name is not None:
        spec = registry.get(name)
        row = to_json(spec)
        end_with_json(row)
        _print_spec(spec, row)
        return
    rows = [to_json(spec) for spec in _listed(registry)]
    end_with_json(rows)
    from bench.reports.terminal.tables import print_rows

    names = ["name", *columns.split(), "summary"]
    print_rows(
        [_HEADS.get(name, name) for name in names],
        [[_fact_text(name, row[name], row) for name in names] for row in rows],
        optional=["summary"] if len(names) > 4 else [],
        right={"size", "pixels"},
    )
    if rows:
        steps = [("see all of one", f"bench list {kind} {rows[0]['name']}")]
        if kind == "backbones":
            steps.append(("use a pipeline's folder", "bench run digits --backbone ./FOLDER"))
        next_steps(*steps)


def _listed(registry: Registry[Any]) -> list[Any]:
    """Return the specs sorted by name, without those that take folders.

    Specs that are equal except for name and summary are listed once, by the first name.
    """
    distinct = {
        repr({**vars(spec), "name": "", "summary": ""}): spec
        for spec in reversed(registry.by_name().values())
        if not getattr(spec, "takes_folders", False)
    }
    return sorted(distinct.values(), key=attrgetter("name"))


# Kind of spec → where its names are used, further columns of its table, and a spec's JSON.
_LISTINGS: dict[str, tuple[str, str, Callable[..., dict[str, JsonValue]]]] = {
    "datasets": ("", "classes splits", _dataset_json),
    "backbones": ("", "family size resolution licence trained_on", _backbone_json),
    "strategies": (", as --strategy takes them", "", _spec_json),
    "views": (" of an image, as --views takes them", "", _spec_json),
    "executors": (", as --executor takes them", "", _spec_json),
    "metrics": (", as --metric takes them", "needs", partial(_spec_json, facts=_METRIC_FACTS)),
    "exporters": (" of `bench export`", "", partial(_spec_json, facts=_EXPORTER_FACTS)),
    "studies": (", as `bench study` takes them", "datasets published", _study_json),
    "collections": (" of datasets", "datasets", partial(_spec_json, facts="datasets")),
}


def _listing(kind: str) -> Command:
    """Return the command that lists the specs of a kind."""
    use, columns, to_json = _LISTINGS[kind]

    def show(name: str | None) -> None:
        _print_specs(kind, columns, to_json, name)

    text = f"List the {kind}{use}; with NAME, show one with all that is known of it."
    return Command(kind, callback=show, help=text)


for _kind in _LISTINGS:
    list_command.add_command(_listing(_kind))


def _print_spec(spec: Spec, row: Mapping[str, Any]) -> None:
    from bench.reports.terminal.tables import print_rows

    say(f"{spec.label}: {row['summary']}")
    left_out = ("name", "summary", "parameters", "help")
    facts = [
        [key.replace("_", " "), _fact_text(key, value, row)]
        for key, value in row.items()
        if key not in left_out and value not in (None, {}, [], (), "", False)
    ]
    if isinstance(spec, DatasetSpec) and spec.classes:
        facts.append(["class names", ", ".join(spec.classes)])
    print_rows(["", ""], facts)
    if spec.parameters:
        say("")
        rows = [
            [key, value_text(parameter.default), parameter.help]
            for key, parameter in spec.parameters.items()
        ]
        print_rows(["parameter", "default", "meaning"], rows)


def _fact_text(column: str, value: Any, row: Mapping[str, Any]) -> str:
    """Return the value of a column as text; `row` has all values of the spec."""
    if column == "summary" and row.get("unverified"):
        return f"{value} (unverified)"
    if column == "trained_on":
        return provenance(value).removeprefix("trained on ")
    if column in ("size", "encoder_size") and value:
        return f"{value / 1e9:.1f}B" if value >= 1e9 else f"{value / 1e6:.0f}M"
    if column == "differs":
        return "\n".join(value)
    if column == "flops" and value:
        giga = value / 1e9
        return f"{giga:{',.0f' if giga >= 100 else '.3g'}} GFLOP per evaluation"
    if column == "gated" and value:
        return "yes: accept the licence on the Hub first"
    return assignments(value) if isinstance(value, Mapping) else value_text(value, separator=", ")
