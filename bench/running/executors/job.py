"""The job that a driver sends to its workers, and how a worker prepares and verifies it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.discovery.loading import load_plugins
from bench.discovery.sources import source_hashes
from bench.errors import UserError
from bench.machine.cache import is_cached, writing_cached
from bench.machine.environment import installed_packages
from bench.running.executors.messages import Job, Texts

if TYPE_CHECKING:
    from bench.running.question import PreparedRun

# Libraries whose version may change scores.
NUMERICAL = ("diffusers", "numpy", "torch", "transformers")


def job_of(run: PreparedRun) -> Job:
    """Return the job of a run, for its workers."""
    changes = {
        **{"executor": "local", "workers": None, "ray_address": None, "fresh": False},
        **{"shard": None, "dtype": run.dtype},
    }
    # A worker may have no access to the calibration of a risk.
    config = run.without_risk().model_copy(update=changes)
    versions, code, split = load_plugins().versions(), run.manifest.environment["code"], run.split
    return Job(
        settings=config.model_dump_json(),
        identity=json.dumps(run.manifest.identity.plain()),
        folder=str(Path.cwd()),
        versions={name: versions[name] for name in code},
        code=code,
        packages=installed_packages(),
        surveyed=(split.fingerprint, split.decoding is None),
    )


def prepare_job(job: Job) -> tuple[PreparedRun, tuple[str, ...]]:
    """Prepare the driver's run in this process; changes the working directory to the driver's.

    Also returns, as text, differing versions that cannot change numbers. Raises UserError if the
    run is invalid here, or its identity, code or libraries are not the driver's.
    """
    from bench.running.prepare import AtHand, prepare
    from bench.running.settings import RunConfig
    from bench.stats.comparison import differing_identity
    from bench.store.identity import Identity

    with suppress(OSError):  # if the folder is missing here, the missing file is reported later
        os.chdir(job.folder)
    differences = _check_versions(job)
    prepared = prepare(RunConfig.model_validate_json(job.settings), AtHand(surveyed=job.surveyed))
    prepared.check()
    mine = prepared.manifest
    identity = Identity.model_validate(json.loads(job.identity))
    identity = identity.model_copy(update={"calibrated": None})
    drivers = mine.model_copy(update={"identity": identity})
    if differing := differing_identity(mine, drivers):
        differs = "; ".join(
            f"{name} is {a} here, and {b} there" for name, (a, b) in differing.items()
        )
        raise UserError(f"the run is not the driver's: {differs}.")
    return prepared, differences


def _check_versions(job: Job) -> tuple[str, ...]:
    """Return harmless differences from the driver's versions; raise UserError for others."""
    plugins = load_plugins()
    here, failed = plugins.versions(), {p.distribution: p.error for p in plugins.loaded if p.error}
    for name, version in job.versions.items():
        if name in failed:
            raise UserError(f"plugin {name} failed to load here: {failed[name]}.")
        if name not in here:
            raise UserError(f"plugin {name} {version} is not installed here.")
        if here[name] != version:
            raise UserError(f"plugin {name} is {here[name]} here, and {version} on the driver.")
    for name, code in source_hashes(plugins, job.code).items():
        if job.code[name] != code:
            raise UserError(
                f"the source files of {name} {here[name]} are not the driver's ({code} here, and"
                f" {job.code[name]} there): install the same files on all machines."
            )
    mine, harmless = installed_packages(), []
    for name in sorted({*mine, *job.packages}):
        ours, drivers = mine.get(name), job.packages.get(name)
        if ours == drivers:
            continue
        differs = f"{name} is {ours} here, and {drivers} on the driver"
        if name in NUMERICAL and _public(ours) != _public(drivers):
            raise UserError(
                f"{differs}: scores may differ between them. Install the same version on all"
                " machines."
            )
        harmless.append(differs)
    return tuple(harmless)


def _public(version: str | None) -> str | None:
    """Return a version without its build tag, such as `+cu128`, which depends on the device."""
    return version and version.partition("+")[0]


# Encoded prompts are cache files. Each is named after a hash of everything that affects it, so its
# name is the same on every machine.


def lacks_texts(prepared: PreparedRun) -> bool:
    """Return whether encoded prompts are missing in this machine's cache."""
    return not all(is_cached(file) for file in prepared.kind.text_files(prepared))


def kept_texts(prepared: PreparedRun) -> Texts:
    """Return the cached encoded prompts, memory-mapped: they are read only when they are sent."""
    return {
        file.name: np.asarray(np.memmap(file, np.uint8, "r"))
        for file in prepared.kind.text_files(prepared)
        if is_cached(file, always=True)
    }


def keep_texts(prepared: PreparedRun, texts: Texts) -> None:
    """Cache prompts that another worker encoded; those that cannot be written are left out."""
    for file in prepared.kind.text_files(prepared):
        if file.name in texts:
            with suppress(OSError), writing_cached(file, durable=False) as opened:
                opened.write(texts[file.name].data)
