"""Repeat a published experiment and compare the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.contracts.protocols import ProtocolSpec
from bench.errors import UserError
from bench.running.parts.scorer import find_backbone
from bench.running.run import run
from bench.running.settings import RunConfig, make_config
from bench.running.verbs.estimate import Plan, make_plan
from bench.store.fields import Document
from bench.store.runs import record_reproduction

REHEARSAL_SETTINGS = ("backbone", "strategy", "params", "limit")
"""Overriding any of these makes the figures incomparable."""
BACKBONE_SETTINGS = ("weights", "revision")  # dropped if the user chooses another backbone


class Reproduction(Document):
    """A protocol's published figure and ours, or the plan of a dry run."""

    protocol: str
    metric: str
    published: float | None  # published figure; None if there is no primary source for it
    published_images: int | None
    source: str
    ours: float | None = None
    interval: tuple[float, float] | None = None  # 95 % interval, if the metric has one
    images: int | None = None
    difference: float | None = None  # our figure minus the published one
    differs: list[str]  # known differences from the published experiment
    rehearsal: bool = False
    """Whether the model, strategy or images differ, so that the figures are not comparable."""
    run_id: str | None = None
    results_dir: str | None = None
    evaluations_per_image: float | None = None
    seconds: float | None = None
    plan: Plan | None = None


def protocol_config(spec: ProtocolSpec, user: Mapping[str, Any]) -> tuple[RunConfig, list[str]]:
    """Return a protocol's settings, overridden by the user's, and the deviations from the paper."""
    own = dict(spec.settings)
    user = {key: value for key, value in user.items() if value is not None}
    differs = list(spec.differs)
    backbone = user.get("backbone")
    if backbone is not None and backbone != own.get("backbone"):
        differs.append(f"backbone: {backbone} instead of {own.get('backbone', 'the default')}")
        config = RunConfig(dataset="-", backbone=backbone, offline=bool(user.get("offline")))
        other = find_backbone(config).spec
        unfit = [n for n in ("normalize", "resolution") if n in own and n not in other.parameters]
        differs += [f"{name}: cannot be set for this backbone" for name in unfit]
        for name in (*BACKBONE_SETTINGS, *unfit):
            own.pop(name, None)
    own_params = own.pop("params", {})
    if user.get("strategy") not in (None, own.get("strategy")):
        own_params = {}  # the protocol's parameters belong to a different strategy
    params = {**own_params, **user.pop("params", {})}
    for name, value in user.items():
        if name in own and name != "backbone" and own[name] != value:
            differs.append(f"{name}: {value} instead of {own[name]}")
    if spec.settings.get("params", {}) != params:
        differs.append("the strategy's parameters are the user's")
    config = make_config({**own, **user, "params": params})
    if config.limit is not None and spec.images is None:
        differs.append(f"images: {config.limit:,} of the split")
    return config, differs


def reproduce(
    spec: ProtocolSpec,
    user: Mapping[str, Any],
    published: float | None = None,
    dry_run: bool = False,
) -> Reproduction:
    """Repeat a protocol with the user's settings, or plan it with `dry_run` (UserError).

    `published` replaces the protocol's published figure.
    """
    config, differs = protocol_config(spec, user)
    reproduction = Reproduction(
        protocol=spec.name,
        metric=spec.metric,
        published=spec.published if published is None else published,
        published_images=spec.images,
        source=spec.source if published is None else "the user",
        differs=differs,
        rehearsal=any(
            user.get(name) not in (None, {}, spec.settings.get(name)) for name in REHEARSAL_SETTINGS
        ),
    )
    if dry_run:
        return reproduction.model_copy(update={"plan": make_plan(config)})
    finished = run(config)
    record_reproduction(finished.folder, spec.name)
    summary, metric, figure = finished.summary, spec.metric, reproduction.published
    metrics, images = summary.metrics.plain(), summary.dataset.n_samples
    if metric not in metrics:
        raise UserError(f"The run has no metric {metric!r}; it has: {', '.join(metrics)}.")
    ours = float(metrics[metric])
    if spec.images not in (None, images):
        differs = [*differs, f"images: {images:,} instead of {spec.images:,}"]
    interval = metrics.get(f"{metric}_ci95")
    result = {
        "differs": differs,
        "ours": ours,
        "interval": tuple(interval) if interval else None,
        "images": images,
        "difference": None if figure is None else ours - figure,
        "run_id": summary.run_id,
        "results_dir": str(finished.folder),
        "evaluations_per_image": summary.cost.evaluations_per_image,
        "seconds": summary.cost.total_seconds,
    }
    return reproduction.model_copy(update=result)
