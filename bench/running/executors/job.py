"""What a worker is told of a run, and whether what it finds is the driver's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.machine.cache import is_kept, keeping
from bench.running.executors.messages import Job, Texts
from bench.running.scorers import kind_of

if TYPE_CHECKING:
    from bench.running.prepared import Prepared


def job_of(run: Prepared) -> Job:
    """Return what workers are told: settings, and what they must find."""
    here = {"executor": "local", "workers": None, "ray_address": None, "fresh": False}
    config = run.config.model_copy(update={**here, "shard": None, "dtype": run.resolved.dtype})
    split = run.split
    assert split is not None
    return Job(
        settings=config.model_dump_json(),
        identity=json.dumps(run.manifest.identity.plain()),
        folder=str(Path.cwd()),
        versions=_versions_used(run),
        surveyed=(split.fingerprint, split.decoding is None),
    )


def prepare_job(job: Job) -> Prepared:
    """Resolve and check a run here.

    Raises:
        UserError: it cannot be scored here, or is not the driver's: it says what differs.
    """
    from bench.running.checks import check
    from bench.running.prepare import prepare
    from bench.running.settings import RunConfig
    from bench.stats.differences import differing_identity
    from bench.store.identity import Identity

    with suppress(OSError):  # where it is not on this node, what is missing in it is named
        os.chdir(job.folder)
    _check_versions(job.versions)
    prepared = prepare(RunConfig.model_validate_json(job.settings), surveyed=job.surveyed)
    check(prepared)
    mine = prepared.manifest
    wanted = Identity.model_validate(json.loads(job.identity))
    drivers = mine.model_copy(update={"identity": wanted})
    if differs := differing_identity(mine, drivers):
        said = "; ".join(f"{name} is {a}, and {b} there" for name, (a, b) in differs.items())
        raise UserError(f"the run is not the driver's: {said}.")
    return prepared


def _versions_used(prepared: Prepared) -> dict[str, str]:
    """Return distribution → version of what registered the parts of a run."""
    plugins, resolved = load_plugins(), prepared.resolved
    owners = [
        plugins.datasets.owner(resolved.dataset.name),
        plugins.backbones.owner(resolved.backbone.name),
        plugins.strategies.owner(resolved.strategy_spec.name),
        *([plugins.views.owner(resolved.views.spec.name)] if resolved.views else []),
    ]
    known = plugins.versions()
    return {name: known[name] for name in sorted({o for o in owners if o in known})}


def _check_versions(wanted: Mapping[str, str]) -> None:
    """Refuse plugins that are not here, or in another version.

    Raises:
        UserError: it says which.
    """
    plugins = load_plugins()
    known, failed = plugins.versions(), {p.distribution: p.error for p in plugins.loaded if p.error}
    for name, version in wanted.items():
        if name in failed:
            raise UserError(f"plugin {name} failed to load here: {failed[name]}.")
        if name not in known:
            raise UserError(f"plugin {name} {version} is not installed here.")
        if known[name] != version:
            raise UserError(f"plugin {name} is {known[name]} here, and {version} on the driver.")


def lacks_texts(prepared: Prepared) -> bool:
    """Tell whether prompts would have to be encoded here."""
    return not all(is_kept(file) for file in kind_of(prepared.resolved).text_files(prepared))


def kept_texts(prepared: Prepared) -> Texts:
    """Return the prompts that are encoded here; large ones are read when they are sent."""
    files = (
        file
        for file in kind_of(prepared.resolved).text_files(prepared)
        if is_kept(file, always=True)
    )
    return {file.name: np.asarray(np.memmap(file, np.uint8, "r")) for file in files}


def keep_texts(prepared: Prepared, texts: Texts) -> None:
    """Keep prompts that are encoded elsewhere; those that the disk does not take are made here."""
    for file in kind_of(prepared.resolved).text_files(prepared):
        if file.name in texts:
            with suppress(OSError), keeping(file, durable=False) as opened:
                opened.write(texts[file.name].data)
