"""`bench doctor`. Check this installation, for bug reports.

Group: See what is there, 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from bench.cli.options import json_option
from bench.cli.output import PROBLEMS_FOUND, end_with_json, next_steps, say
from bench.cli.settings import config_from_options, config_options
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.reports.terminal.tables import print_rows
from bench.running.parts.setting import option
from bench.running.settings import about

if TYPE_CHECKING:
    from bench.running.doctor import Diagnosis


@click.command()
@click.option("--quick", is_flag=True, help="Skip the self-test, which takes about 10 seconds.")
@click.option("--speed", is_flag=True, help="Also measure evaluations per second by batch size.")
@config_options(about("network"))
@json_option
def doctor_command(quick: bool, speed: bool, **options: Any) -> int:
    """Check this installation, and print what a bug report needs.

    It prints versions, devices, sizes of caches and plugins, with those that failed, and scores a
    few images with the bundled model. The exit code is 4 if something is wrong.

    --speed compares a backbone with the device's fastest matrix product. `bench run` then uses the
    best batch size, and its --dry-run estimates the time from this speed.
    """
    for name in () if speed else options:
        if click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UserError(f"{option(name)} needs --speed, which measures a backbone.")
    config = config_from_options("-", **options) if speed else None
    from bench.running.doctor import diagnose
    from bench.running.speed import measure_speed

    if not quick:
        say("Scoring a few images …", err=True)
    diagnosis = diagnose(load_plugins(), testing=not quick)
    if config is not None:
        diagnosis.speed = measure_speed(config)
    code = 0 if diagnosis.well else PROBLEMS_FOUND
    end_with_json(diagnosis.model_dump(mode="json"), code)
    _print_diagnosis(diagnosis)
    return code


def _print_diagnosis(report: Diagnosis) -> None:
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
    if speed := report.speed:
        flops, peak = speed.flops_per_evaluation, speed.peak_flops
        print_rows(
            ["batch size", "evaluations/s", "of the device's peak, %"],
            [[n, rate, flops and 100 * rate * flops / peak] for n, rate in speed.rates.items()],
            title=f"{speed.backbone} in {speed.dtype} on {speed.device}",
        )
        say(f"Best batch size: {speed.best_batch_size}; the peak: {peak / 1e9:,.1f} GFLOP/s")
    say(
        "\nNothing is wrong." if report.well else "\nSomething is wrong: see the words in capitals."
    )
    next_steps(("report a problem with all of the above", "bench doctor --json > doctor.json"))
