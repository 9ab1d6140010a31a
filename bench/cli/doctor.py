"""`bench doctor`. Check this installation, for bug reports.

Group: See what is there, 3.
"""

import os
import re
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from timeit import repeat
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from bench import __version__
from bench.cli.command import command, end_with_json
from bench.cli.output import PROBLEMS_FOUND, next_steps, say
from bench.cli.settings import config_from_options, config_options
from bench.discovery.finding import OWN_DISTRIBUTION, Plugin
from bench.discovery.loading import Plugins, load_plugins
from bench.engine.batching import device_name, rates_by_size, smallest_of_the_best
from bench.engine.denoising import DenoisingEngine
from bench.errors import BenchError, UserError
from bench.machine.cache import cache_dir
from bench.machine.environment import devices, environment
from bench.machine.libraries import NEWEST_SEEN, torch
from bench.machine.offline import offline_if_set
from bench.machine.speeds import remember_batch_size, remember_speed
from bench.reports.terminal.tables import print_rows
from bench.running.kinds import speed_key
from bench.running.manifest import evaluation_flops
from bench.running.parts.declaration import option
from bench.running.parts.settings import RunConfig, about
from bench.running.prepare import NO_DATASET, Preloaded, read_content
from bench.store.formats.fields import Count, Document


@command(needs={option(name): "--speed" for name in about("network")})
@config_options(about("network"))
def doctor_command(
    *,
    quick: Annotated[bool, "Skip the self-test, which takes about 10 seconds."],
    speed: Annotated[bool, "Also measure evaluations per second by batch size."],
    **options: Any,
) -> None:
    """Check this installation, and print what a bug report needs.

    It prints versions, devices, sizes of caches and plugins, with those that failed, and scores a
    few images with the bundled model. The exit code is 4 if something is wrong.

    --speed compares a backbone with the device's fastest matrix product. `bench run` then uses the
    best batch size, and its --dry-run estimates the time from this speed.
    """
    config = config_from_options(dataset="-", **options) if speed else None

    if not quick:
        say("Scoring a few images …", err=True)
    diagnosis = diagnose(load_plugins(), testing=not quick)
    if config is not None:
        diagnosis.speed = measure_speed(config)
    end_with_json(diagnosis.model_dump(mode="json"), 0 if diagnosis.well else PROBLEMS_FOUND)
    _print_diagnosis(diagnosis)


def _print_diagnosis(report: "Diagnosis") -> None:
    commit = f", commit {report.git}" if report.git else ""
    rows: list[Sequence[str]] = [
        ["bench", f"{report.bench}{commit}"],
        ["Python", f"{report.python} on {report.platform}, {report.cpus} CPUs"],
        ["devices", "\n".join(report.devices)],
        ["packages", ", ".join(f"{k} {v or 'MISSING'}" for k, v in report.packages.items())],
        *([name, f"newer than tested, which was {seen}"] for name, seen in report.newer.items()),
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


IMAGES = 20  # number of images in the self-test

# Environment variables besides BENCH_… that affect the libraries. None of them holds a secret.
SHOWN_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "NO_COLOR", "COLUMNS"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"),
)


class Cache(BaseModel):
    """A folder whose content can be recreated or downloaded again."""

    name: str
    folder: str
    bytes: int


class SelfTest(BaseModel):
    """A small run of the default backbone on the dataset it was trained on."""

    status: Literal["passed", "failed", "left out"]
    said: str
    seconds: float | None = None


class Diagnosis(BaseModel):
    """The report of `bench doctor`."""

    bench: str
    git: str | None
    python: str
    platform: str
    cpus: int | None
    packages: dict[str, str | None]
    """Versions of requirements and installed extras; None for a missing requirement."""
    devices: list[str]
    caches: list[Cache]
    variables: dict[str, str]
    plugins: list[Plugin]
    self_test: SelfTest
    newer: dict[str, str] = {}
    """Library → newest version that was tested, of those that are installed in a newer one."""
    speed: "Speed | None" = None  # of a backbone; None if it was not measured

    @property
    def well(self) -> bool:
        """Whether no package is missing, no plugin failed, and the self-test did not fail."""
        failed = any(plugin.error for plugin in self.plugins) or self.self_test.status == "failed"
        return None not in self.packages.values() and not failed


def diagnose(plugins: Plugins, testing: bool = True) -> Diagnosis:
    """Describe this installation. With `testing`, also score a few images."""
    here, packages = environment({}, {}), _packages()
    test = SelfTest(status="left out", said="it was not asked for")
    if testing:
        test = self_test(plugins)
    return Diagnosis(
        bench=__version__,
        **{name: here[name] for name in ("git", "python", "platform", "cpus")},
        packages=packages,
        newer={n: seen for n, seen in NEWEST_SEEN.items() if _is_newer(packages.get(n), seen)},
        devices=devices(),
        caches=_caches(),
        variables={
            name: _hide_home(value)
            for name, value in sorted(os.environ.items())
            if name.startswith("BENCH_") or name in SHOWN_VARIABLES
        },
        plugins=plugins.loaded,
        self_test=test,
    )


def self_test(plugins: Plugins) -> SelfTest:
    """Score a few images with the default backbone in a temporary folder."""
    from bench.running.lifecycle import run
    from bench.running.parts.settings import make_config

    backbone = plugins.backbones.default()
    if backbone is None or not backbone.trained_on:
        return SelfTest(status="left out", said="there is no default backbone with a dataset")
    dataset = backbone.trained_on.partition("/")[0]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        settings = {"dataset": dataset, "backbone": backbone.name, "limit": IMAGES}
        try:
            summary = run(make_config({**settings, "batch_size": 64, "results": folder})).summary
        except BenchError as error:
            return SelfTest(status="failed", said=str(error))
        except Exception as error:  # the report includes any failure
            return SelfTest(status="failed", said=f"{type(error).__name__}: {error}")
    metrics, n = summary.metrics, summary.dataset.n_samples
    right = round(metrics.accuracy * n)
    better = metrics.accuracy_ci95[0] > (metrics.chance or 0)
    return SelfTest(
        status="passed" if better and not summary.failed_samples else "failed",
        said=f"{right} of {n} images of {dataset} right with {backbone.name}",
        seconds=time.perf_counter() - started,
    )


def _packages() -> dict[str, str | None]:
    """Return the versions of this distribution's requirements; extras only if installed."""
    packages: dict[str, str | None] = {}
    try:
        required = requires(OWN_DISTRIBUTION) or []
    except PackageNotFoundError:  # a checkout that is not installed
        required = []
    for line in required:
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            if "extra ==" not in line:
                packages[name] = None
    packages.pop(OWN_DISTRIBUTION, None)
    return packages


def _is_newer(installed: str | None, tested: str) -> bool:
    """Return whether the release (the first two numbers) of a version is later than another's."""

    def release(text: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", text)[:2]]

    return release(installed or "0") > release(tested)


def _caches() -> list[Cache]:
    from huggingface_hub import constants

    datasets = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets")
    folders = {
        "bench": cache_dir(),
        "Hugging Face Hub": Path(constants.HF_HUB_CACHE),
        "datasets": Path(datasets),
    }
    return [
        Cache(name=name, folder=_hide_home(str(folder)), bytes=_size(folder))
        for name, folder in folders.items()
    ]


def _size(folder: Path) -> int:
    """Return the size of all files below a folder, in bytes."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):  # the file was just removed
                total += Path(parent, name).lstat().st_size
    return total


def _hide_home(text: str) -> str:
    """Replace the home folder, and so the user's name, by `~`."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


class Speed(Document):
    """The speed of one backbone on this machine."""

    backbone: str
    device: str
    dtype: str
    rates: dict[int, float]  # evaluations per second by batch size
    best_batch_size: Count  # smallest within 4 % of the fastest
    flops_per_evaluation: float | None  # None if unknown
    peak_flops: float  # operations per second of the device's fastest matrix product


@offline_if_set
def measure_speed(config: RunConfig, seconds: float = 15.0) -> Speed:
    """Measure evaluations of random inputs, and store the speed for runs and plans.

    It takes about `seconds`, and reads no dataset. UserError if the backbone is not a denoiser.
    """
    content = read_content(config.model_copy(update={"batch_size": 1}), Preloaded(NO_DATASET))
    name, precision = content.names.source.name, content.names.precision.network
    if not content.names.backbone.denoises:
        raise UserError(f"Backbone {name!r} is not a denoiser: it has no batches.")
    content.check()
    engine = content.kind.open_engine(content)
    assert isinstance(engine, DenoisingEngine)
    device, rates = engine.backbone.device, rates_by_size(engine, seconds)
    best = smallest_of_the_best(rates)
    remember_batch_size(f"{speed_key(content)} {device_name(device)}", best)
    remember_speed(name, device.type, precision, rates[best])
    with engine.backbone.switches():
        peak = matmul_peak(device, getattr(torch, content.names.precision.dtype))
    return Speed(
        backbone=name,
        device=device_name(device),
        dtype=precision,
        rates=rates,
        best_batch_size=best,
        flops_per_evaluation=evaluation_flops(content),
        peak_flops=peak,
    )


def matmul_peak(device: "torch.device", dtype: "torch.dtype", seconds: float = 0.1) -> float:
    """Return the operations per second of the device's fastest product of n×n matrices, 2 n³ each.

    The side n is doubled until a product takes `seconds`, up to 16,384.
    """
    best, shortest, side = 0.0, 0.0, 512
    while side <= 16_384 and shortest < seconds:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        # Reading a number waits for the device.
        shortest = min(repeat("(a @ b)[0, 0].item()", number=1, globals={"a": a, "b": b}))
        best, side = max(best, 2 * side**3 / shortest), 2 * side
    return best
