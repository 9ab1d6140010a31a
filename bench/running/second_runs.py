"""Decide some images of a run a second time, and keep the comparison in its folder.

`--again N` decides them with other noise, `--audit N` by the full sweep.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from bench.contracts.decision import Decided
from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.discovery.queries import exhaustive_strategy
from bench.errors import UserError, warn_user
from bench.inputs.subsets import select_subset
from bench.machine.stages import counted
from bench.running.command import stored_settings
from bench.running.content import Opener, PreparedRun
from bench.running.execute import timed
from bench.running.parts.decision import backbone_params
from bench.running.parts.settings import SETTINGS, RunConfig, Values, make_config
from bench.running.prepare import Preloaded, prepare
from bench.stats.calibration.agreement import Audit, audit_of, sweepable_rows
from bench.stats.inference.shares import exact_interval
from bench.stats.metrics.comparison import differing_identity
from bench.store.folder import read_manifest
from bench.store.formats.decisions import read_decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import without_none
from bench.store.formats.identity import digest
from bench.store.locking import refuse_shipped
from bench.store.summary import Repeated, Swept, permuted, read_again, read_swept, write_again
from bench.store.writing import RunFolder


def other_noise(prepared: PreparedRun) -> RunConfig:
    """Return a run's settings with another seed and, for a denoiser, noise per image.

    Given the first run, decisions then change independently of each other, so an exact binomial
    interval applies. The seed is derived from the run's identity, so it is reproducible.
    """
    seed = int(digest(prepared.manifest.identity)[:7], 16) + 1000  # far from common seeds
    changes: Values = {"seed": seed, "fresh": False}
    if SETTINGS["noise_per"].is_for(prepared.names.backbone):
        changes["noise_per"] = "image"
    # The parameters of a risk were calibrated with the run's seed.
    return prepared.names.without_risk().model_copy(update=changes)


def decided_again(
    run: PreparedRun, sample_ids: Sequence[str], open_run: Opener, stage: str
) -> Iterator[tuple[Decided, float]]:
    """Yield the decisions of a second run on these images, each with its seconds.

    Progress is shown under the name `stage`.
    """
    with closing(open_run(run)) as opened:
        yield from counted(timed(opened.score(sample_ids)), stage, len(sample_ids))


def decide_again(
    run: PreparedRun, manifest: Manifest, path: Path, count: int, open_run: Opener
) -> Repeated | None:
    """Decide `count` random images of a stored run again, unless that is stored already.

    `run` is the same run with other noise; `path`, the folder of the stored run, gets the result.
    None if no image was decided both times.
    """
    decided = read_decisions(path, manifest)
    good = np.flatnonzero(~decided.failed)
    count = min(count, len(good))
    stored = read_again(path, manifest, decided)
    if count == 0 or (stored is not None and stored.images >= count):
        return stored
    seed = run.config.seed
    rows = np.sort(np.random.default_rng(seed).choice(good, count, replace=False))
    first = {decided.sample_ids[int(row)].as_py(): int(decided.predictions[row]) for row in rows}
    images = list(decided_again(run, list(first), open_run, "Deciding again"))
    second = {
        image.sample.sample_id: image.winner for image, _ in images if image.winner is not None
    }
    if not second:
        return None
    changed = [name for name, prediction in second.items() if first[name] != prediction]
    low, high = exact_interval(len(changed), len(second))
    again = Repeated(
        of=len(good),
        images=len(second),
        changed=sorted(changed),
        expected=len(good) * len(changed) / len(second),
        expected_ci95=(len(good) * low, len(good) * high),
        seed=seed,
        evaluations=sum(image.evaluations for image, _ in images),
        evaluation_equivalents=round(sum(image.equivalents for image, _ in images), 2),
        seconds=round(sum(seconds for _, seconds in images), 4),
    )
    return write_again(path, manifest, again, decided)


def full_sweep(prepared: PreparedRun) -> RunConfig:
    """Return the settings of the full sweep of a run's images, on the run's own draws."""
    return swept(prepared.config, prepared.names.backbone, prepared.strategy.draws)


def swept(config: RunConfig, backbone: BackboneSpec, draws: int) -> RunConfig:
    """Return the settings of a full sweep. Only the backbone's parameters are kept."""
    spec = load_plugins().strategies.get(exhaustive_strategy())
    params = {**backbone_params(config, backbone, spec), "draws": draws}
    changes = {"strategy": spec.name, "params": params, "hierarchy": None, "risk": None}
    return config.model_copy(update={**changes, "fresh": False})


def audit(
    run: PreparedRun, manifest: Manifest, path: Path, count: int, open_run: Opener
) -> Audit | None:
    """Sweep images of a stored run until the first `count` of a fixed permutation are swept.

    For a shard, these are its own among the first `count` of the whole run. Each line is on disk
    before the next image is swept, so the same call resumes. `run` is the full sweep of the same
    images, `path` the folder of the stored run. None if that has no image to sweep.
    """
    decided = read_decisions(path, manifest)
    names, sizes = decided.sample_ids.to_pylist(), run.content.problems()
    problem = sizes[0][0]
    sweep_cost = problem.price(len(problem.class_of_prompt), len(problem.timesteps))
    sweepable = sweepable_rows(decided, manifest, sweep_cost)
    answers = {names[row]: int(decided.predictions[row]) for row in np.flatnonzero(sweepable)}
    elsewhere: set[str] = set()  # images in other shards of the run
    if manifest.part is not None:
        asked_for = select_subset(run.split.sample_ids, run.split.labels, manifest.part.asked)
        elsewhere = set(asked_for) - set(manifest.samples)
    first = permuted({*answers, *elsewhere}, digest(manifest.identity))[:count]
    stored = read_swept(path, manifest)
    outstanding = [name for name in first if name in answers and name not in stored]
    if outstanding:
        with RunFolder(path, read_manifest(path)) as folder:
            for image, seconds in decided_again(run, outstanding, open_run, "Auditing"):
                folder.append_swept(_line(image, answers[image.sample.sample_id], seconds))
    elif not answers:
        warn_user(
            "--audit: every image was evaluated with every prompt on every draw, so all decisions"
            " are those of the full sweep."
        )
    return audit_of(read_swept(path, manifest), manifest, decided)


def _line(image: Decided, answer: int, seconds: float) -> Swept:
    outcome, sample = image.outcome, image.sample
    answers = list(sample.right if answer == sample.label else (answer,))
    return Swept(
        sample_id=image.sample.sample_id,
        prediction=image.winner,
        regret=None
        if outcome is None
        else float(outcome.scores[answers].min() - outcome.scores.min()),
        evaluations=image.evaluations,
        equivalents=round(image.equivalents, 2),
        seconds=round(seconds, 4),
    )


# Setting → how the run's settings change to decide N images a second time, and what does so.
SECOND_RUNS = {"again": (other_noise, decide_again), "audit": (full_sweep, audit)}


def prepare_again(run: PreparedRun, config: RunConfig) -> PreparedRun:
    """Prepare another run with the images of `run`, and its backbone if that is loaded."""
    return prepare(config, Preloaded(run.names.data, loaded=run.content.loaded, split=run.split))


MAY_DIFFER = ("strategy", "calibrated", "replayed")  # parts of the identity, from run to its sweep


def audit_stored(path: Path, count: int, settings: Mapping[str, Any]) -> Audit | None:
    """Audit a stored run or replay with the model on this machine; see `audit`.

    `count` includes earlier sweeps; `settings` are those of this machine, such as `data_dir`.
    Raises UserError if data, weights or code differ from those of the run.
    """
    refuse_shipped(path)
    manifest = read_manifest(path)
    if not manifest.on_draws:
        raise UserError(
            f"{manifest.run_id} has no draws, so there is no full sweep to compare with."
        )
    spec = load_plugins().backbones.get(str(manifest.config.backbone))
    config = make_config({**stored_settings(manifest), **without_none(**settings)})
    sweep = prepare(swept(config, spec, int(str(manifest.strategy.params["draws"]))))
    # A tree has prompts of inner nodes too, which no sweep needs.
    of_classes = [prompt for prompt in manifest.prompts if prompt[1] < len(manifest.classes)]
    same = ("prompts", "hierarchy") if of_classes == sweep.manifest.prompts else ()
    places = differing_identity(manifest, sweep.manifest)
    differs = [name for name in places if name.partition(".")[0] not in (*MAY_DIFFER, *same)]
    if differs:
        raise UserError(
            f"{manifest.run_id} cannot be swept here, because {', '.join(differs)} differ. Name its"
            " data with --data-dir, or use the version of the toolkit that made it."
        )
    sweep.check()
    return audit(sweep, manifest, path, count, PreparedRun.open)
