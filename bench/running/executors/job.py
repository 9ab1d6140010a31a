"""How a worker prepares the driver's run: from its settings, and with its encoded prompts."""

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
    """Return a run's settings, and what workers must find with them."""
    here = {"executor": "local", "workers": None, "ray_address": None, "fresh": False}
    chosen: dict[str, object] = {"shard": None, "dtype": run.resolved.dtype}
    if run.config.risk is not None:  # a worker may not see the calibration
        decider = run.resolved.decider
        params = {**run.config.params, **decider.parameters}
        chosen |= {"risk": None, "strategy": decider.spec.name, "params": params}
    config = run.config.model_copy(update={**here, **chosen})
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
    """Resolve and check a run here; a UserError where it differs from the driver's."""
    from bench.running.model_run import check
    from bench.running.prepare import prepare
    from bench.running.settings import RunConfig
    from bench.stats.differences import differing_identity
    from bench.store.identity import Identity

    with suppress(OSError):  # a folder that this node lacks: the error is about the file in it
        os.chdir(job.folder)
    _check_versions(job.versions)
    prepared = prepare(RunConfig.model_validate_json(job.settings), surveyed=job.surveyed)
    check(prepared)
    mine = prepared.manifest
    wanted = Identity.model_validate(json.loads(job.identity))
    wanted = wanted.model_copy(update={"calibrated": None})
    drivers = mine.model_copy(update={"identity": wanted})
    if differing := differing_identity(mine, drivers):
        differs = "; ".join(f"{name} is {a}, and {b} there" for name, (a, b) in differing.items())
        raise UserError(f"the run is not the driver's: {differs}.")
    return prepared


def _versions_used(prepared: Prepared) -> dict[str, str]:
    """Return distribution → version of what registered the parts of a run."""
    plugins, resolved = load_plugins(), prepared.resolved
    owners = [
        plugins.datasets.owner(resolved.dataset.name),
        plugins.backbones.owner(resolved.backbone.name),
        plugins.strategies.owner(resolved.decider.spec.name),
        *([plugins.views.owner(resolved.views.spec.name)] if resolved.views else []),
    ]
    versions = plugins.versions()
    return {name: versions[name] for name in sorted({o for o in owners if o in versions})}


def _check_versions(wanted: Mapping[str, str]) -> None:
    plugins = load_plugins()
    here, failed = plugins.versions(), {p.distribution: p.error for p in plugins.loaded if p.error}
    for name, version in wanted.items():
        if name in failed:
            raise UserError(f"plugin {name} failed to load here: {failed[name]}.")
        if name not in here:
            raise UserError(f"plugin {name} {version} is not installed here.")
        if here[name] != version:
            raise UserError(f"plugin {name} is {here[name]} here, and {version} on the driver.")


# Encoded prompts are files whose name, on every machine, is the hash of all that decides them.


def lacks_texts(prepared: Prepared) -> bool:
    """Return whether prompts would have to be encoded here."""
    return not all(is_kept(file) for file in kind_of(prepared.resolved).text_files(prepared))


def kept_texts(prepared: Prepared) -> Texts:
    """Return the prompts that are encoded here; large ones are read when they are sent."""
    return {
        file.name: np.asarray(np.memmap(file, np.uint8, "r"))
        for file in kind_of(prepared.resolved).text_files(prepared)
        if is_kept(file, always=True)
    }


def keep_texts(prepared: Prepared, texts: Texts) -> None:
    """Write prompts that another worker encoded; those that do not fit are encoded here."""
    for file in kind_of(prepared.resolved).text_files(prepared):
        if file.name in texts:
            with suppress(OSError), keeping(file, durable=False) as opened:
                opened.write(texts[file.name].data)
