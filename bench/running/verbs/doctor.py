"""What this installation is and whether it works: what a bug report needs."""

from __future__ import annotations

import os
import re
import tempfile
import time
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from bench import __version__
from bench.discovery.finding import OWN_DISTRIBUTION
from bench.discovery.loading import Plugins
from bench.errors import BenchError
from bench.machine.cache import cache_dir
from bench.machine.environment import devices, environment

IMAGES = 20  # of the self-test
# Beside BENCH_…: what changes how the libraries work. None of them holds a secret.
SHOWN_VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "NO_COLOR", "COLUMNS"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"),
)


class Cache(BaseModel):
    """A folder of what can be made or fetched again."""

    name: str
    folder: str
    bytes: int


class PluginState(BaseModel):
    """An installed plugin; `error` says why it failed."""

    name: str
    distribution: str
    version: str
    error: str | None


class SelfTest(BaseModel):
    """A small run of the default backbone on the dataset that it was trained on."""

    status: Literal["passed", "failed", "left out"]
    said: str
    seconds: float | None = None


class Diagnosis(BaseModel):
    """All that `bench doctor` says."""

    bench: str
    git: str | None
    python: str
    platform: str
    cpus: int | None
    packages: dict[str, str | None]
    """What the toolkit needs, and its extras where they are installed; None: it is missing."""
    devices: list[str]
    caches: list[Cache]
    variables: dict[str, str]
    plugins: list[PluginState]
    self_test: SelfTest

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        missing = None in self.packages.values()
        failed = any(plugin.error for plugin in self.plugins) or self.self_test.status == "failed"
        return not missing and not failed


def diagnose(plugins: Plugins, testing: bool = True) -> Diagnosis:
    """Look at this installation.

    Args:
        plugins: what is installed.
        testing: whether to score a few images as well.
    """
    found = environment({})
    return Diagnosis(
        bench=__version__,
        git=found["git"],
        python=found["python"],
        platform=found["platform"],
        cpus=found["cpus"],
        packages=_packages(),
        devices=devices(),
        caches=_caches(),
        variables={
            name: _short(value)
            for name, value in sorted(os.environ.items())
            if name.startswith("BENCH_") or name in SHOWN_VARIABLES
        },
        plugins=[
            PluginState(name=p.name, distribution=p.distribution, version=p.version, error=p.error)
            for p in plugins.loaded
        ],
        self_test=self_test(plugins)
        if testing
        else SelfTest(status="left out", said="it was not asked for"),
    )


def self_test(plugins: Plugins) -> SelfTest:
    """Score a few images with the default backbone, in a folder that is removed afterwards."""
    from bench.running.run import run
    from bench.running.settings import make_config

    backbone = plugins.backbones.default()
    if backbone is None or not backbone.trained_on:
        return SelfTest(status="left out", said="there is no default backbone with a dataset")
    dataset = backbone.trained_on.partition("/")[0]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        settings = {"dataset": dataset, "backbone": backbone.name, "limit": IMAGES}
        try:
            summary = run(make_config({**settings, "batch_size": "64", "results": folder})).summary
        except BenchError as error:
            return SelfTest(status="failed", said=str(error))
        except Exception as error:  # whatever it is, it is what the report is about
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
    """Return the packages that the toolkit requires, with those of its extras that are there."""
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


def _caches() -> list[Cache]:
    from huggingface_hub import constants

    folders = {
        "bench": cache_dir(),
        "Hugging Face Hub": Path(constants.HF_HUB_CACHE),
        "datasets": Path(
            os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets"
        ),
    }
    return [
        Cache(name=name, folder=_short(str(folder)), bytes=_size(folder))
        for name, folder in folders.items()
    ]


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder; links count as themselves."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:  # it went meanwhile
                continue
    return total


def _short(text: str) -> str:
    """Return a path without the user's name, which a report need not tell."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
