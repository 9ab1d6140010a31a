"""`bench plugins`. List installed plugins, and what failed to load.

Group: See what is there, 2.

`bench doctor`. Check this installation, for bug reports.

Group: See what is there, 3.

`bench completion`. Print the script for shell completion.

Group: Make it yours, 2.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import get_completion_class

from bench.cli.options import json_option
from bench.cli.output import PROBLEMS_FOUND, next_steps, print_json, say
from bench.cli.settings import config_from_options, config_options
from bench.discovery.loading import load_plugins
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.running.verbs.doctor import Diagnosis
    from bench.running.verbs.speed import Speed

_SPEED_OPTIONS = ("backbone", "weights", "revision", "resolution", "dtype", "device", "tf32")

# Shell → the command that enables completion in every new shell.
_AT_EVERY_START = {
    "bash": "bench completion bash >> ~/.bashrc",
    "zsh": "bench completion zsh >> ~/.zshrc",
    "fish": "bench completion fish > ~/.config/fish/completions/bench.fish",
}


@click.command()
@json_option
def plugins_command(as_json: bool) -> None:
    """List the installed plugins: what each registered, or why it failed."""
    rows = [
        {**asdict(plugin), "status": "failed" if plugin.error else "loaded"}
        for plugin in load_plugins().loaded
    ]
    if as_json:
        print_json(rows)
        return
    from bench.render.tables import print_rows

    keys = ("name", "distribution", "version", "status")
    print_rows(
        ["plugin", *keys[1:], "registers"],
        [
            [*(row[key] for key in keys), row["error"] or _group_by_kind(row["registered"])]
            for row in rows
        ],
        optional=["version", "distribution"],
    )
    next_steps(("write one of your own", "bench new plugin NAME"))


def _group_by_kind(registered: Sequence[str]) -> str:
    """Return `backbone sd15`, `backbone sd21` as `backbone: sd15, sd21`."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for entry in registered:
        kind, _, name = entry.partition(" ")
        kinds[kind].append(name)
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())


@click.command()
@click.option("--quick", is_flag=True, help="Skip the self-test, which takes about 10 seconds.")
@click.option("--speed", is_flag=True, help="Also measure evaluations per second by batch size.")
@config_options(_SPEED_OPTIONS)
@json_option
@click.pass_context
def doctor_command(
    ctx: click.Context, /, quick: bool, speed: bool, as_json: bool, **options: Any
) -> int:
    """Check this installation, and print what a bug report needs.

    It prints versions, devices, sizes of caches and plugins, with those that failed, and scores a
    few images with the bundled model. The exit code is 4 if something is wrong.

    --speed compares a backbone with the device's fastest matrix product. `bench run` then uses the
    best batch size, and its --dry-run estimates the time from this speed.
    """
    for name in () if speed else options:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UserError(f"--{name} needs --speed, which measures a backbone.")
    config = config_from_options(ctx, "-", **options) if speed else None
    from bench.running.verbs.doctor import diagnose

    if not quick:
        say("Scoring a few images …", err=True)
    diagnosis = diagnose(load_plugins(), testing=not quick, speed_of=config)
    if as_json:
        print_json(diagnosis.model_dump(mode="json"))
    else:
        _print_diagnosis(diagnosis)
    return 0 if diagnosis.well else PROBLEMS_FOUND


def _print_diagnosis(report: Diagnosis) -> None:
    from bench.render.tables import print_rows

    commit = f", commit {report.git}" if report.git else ""
    rows: list[Sequence[str]] = [
        ["bench", f"{report.bench}{commit}"],
        ["Python", f"{report.python} on {report.platform}, {report.cpus} CPUs"],
        ["devices", "\n".join(report.devices)],
        ["packages", ", ".join(f"{k} {v or 'MISSING'}" for k, v in report.packages.items())],
        *([f"cache: {c.name}", f"{c.bytes / 1e6:,.1f} MB in {c.folder}"] for c in report.caches),
        ["variables", "\n".join(f"{k}={v}" for k, v in report.variables.items()) or "none"],
    ]
    for plugin in report.plugins:
        status = f"FAILED: {plugin.error}" if plugin.error else "loaded"
        rows.append([f"plugin: {plugin.name}", f"{plugin.distribution} {plugin.version}, {status}"])
    test = report.self_test
    seconds = "" if test.seconds is None else f" in {test.seconds:.1f} s"
    rows.append(["self-test", f"{test.status.upper()}: {test.said}{seconds}"])
    print_rows(["", ""], rows)
    if report.speed is not None:
        _print_speed(report.speed)
    say(
        "\nNothing is wrong." if report.well else "\nSomething is wrong: see the words in capitals."
    )
    next_steps(("report a problem with all of the above", "bench doctor --json > doctor.json"))


def _print_speed(speed: Speed) -> None:
    from bench.render.tables import print_rows

    flops, peak = speed.flops_per_evaluation, speed.peak_flops
    print_rows(
        ["batch size", "evaluations/s", "of the device's peak, %"],
        [[n, rate, flops and 100 * rate * flops / peak] for n, rate in speed.rates.items()],
        title=f"{speed.backbone} in {speed.dtype} on {speed.device}",
    )
    say(f"Best batch size: {speed.best_batch_size}; the device's peak: {peak / 1e9:,.1f} GFLOP/s")


@click.command()
@click.argument("shell", type=click.Choice(list(_AT_EVERY_START)))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands, options and names with the Tab key.

    To enable it in every new shell: bench completion bash >> ~/.bashrc (zsh: ~/.zshrc; fish:
    > ~/.config/fish/completions/bench.fish).
    """
    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(ctx.find_root().command, {}, "bench", "_BENCH_COMPLETE").source())
    if sys.stdout.isatty():
        say(f"To enable it in every new shell: {_AT_EVERY_START[shell]}", err=True)
