"""Repeating a published experiment: its protocol's run, beside the published figure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bench.contracts.protocols import ProtocolSpec
from bench.discovery.loading import Plugins, load_plugins
from bench.errors import UserError
from bench.running.execute import Finished
from bench.running.resolve import resolve_backbone
from bench.running.run import run
from bench.running.settings import RunConfig, make_config
from bench.running.verbs.estimate import Plan, make_plan
from bench.store.fields import Document
from bench.store.runs import mark

OF_A_REHEARSAL = ("backbone", "strategy", "params", "limit")  # settings that make it one
OF_A_BACKBONE = ("weights", "revision")  # settings that go with the protocol's own backbone


class Reproduction(Document):
    """A protocol's figure and ours; a plan where nothing was run."""

    protocol: str
    metric: str
    published: float | None
    """None: none is known at first hand."""
    published_images: int | None
    source: str
    ours: float | None = None
    interval: tuple[float, float] | None = None
    """95 %, where the metric has one."""
    images: int | None = None
    difference: float | None = None
    """Ours less the published figure."""
    differs: list[str]
    """What of this run is not what was published, as far as it is known."""
    rehearsal: bool = False
    """Whether another model, strategy or part of the images was asked, so that nothing compares."""
    run_id: str | None = None
    results_dir: str | None = None
    evaluations_per_image: float | None = None
    seconds: float | None = None
    plan: Plan | None = None


def protocol_config(spec: ProtocolSpec, given: Mapping[str, Any]) -> tuple[RunConfig, list[str]]:
    """Return the settings of a protocol's run, and what of them is not what was published.

    Args:
        spec: the protocol.
        given: the user's settings, which go before its own; `params` are merged.

    Raises:
        UserError: they do not go together.
    """
    plugins, own = load_plugins(), dict(spec.settings)
    given = {key: value for key, value in given.items() if value is not None}
    differs = list(spec.differs)
    backbone = given.get("backbone")
    if backbone is not None and backbone != own.get("backbone"):
        differs.append(f"backbone: {backbone} instead of {own.get('backbone', 'the default')}")
        unfit = _unfit(own, backbone, plugins, bool(given.get("offline")))
        differs += [f"{name}: this backbone has no choice of it" for name in unfit]
        for name in (*OF_A_BACKBONE, *unfit):
            own.pop(name, None)
    theirs = own.pop("params", {})
    if given.get("strategy") not in (None, own.get("strategy")):
        theirs = {}  # they are another strategy's
    params = {**theirs, **given.pop("params", {})}
    for name, value in given.items():
        if name in own and name != "backbone" and own[name] != value:
            differs.append(f"{name}: {value} instead of {own[name]}")
    if spec.settings.get("params", {}) != params:
        differs.append("the strategy's parameters are the user's")
    config = make_config({**own, **given, "params": params})
    if config.limit is not None and spec.images is None:
        differs.append(f"images: {config.limit:,} of the split")
    return config, differs


def _unfit(own: Collection[str], backbone: str, plugins: Plugins, offline: bool) -> list[str]:
    """Return which of the protocol's own settings another backbone does not have."""
    config = RunConfig(dataset="-", backbone=backbone, offline=offline)
    spec = resolve_backbone(config, None, plugins).spec
    return [n for n in ("normalize", "resolution") if n in own and n not in spec.parameters]


def reproduce(
    spec: ProtocolSpec,
    given: Mapping[str, Any],
    published: float | None = None,
    dry_run: bool = False,
) -> Reproduction:
    """Repeat a protocol, or say what that would take.

    Args:
        spec: the protocol.
        given: the user's settings, which go before its own.
        published: the published figure, where the protocol has none.
        dry_run: plan it only.

    Raises:
        UserError: something is wrong that the user can fix; nothing was scored.
    """
    config, differs = protocol_config(spec, given)
    asked = Reproduction(
        protocol=spec.name,
        metric=spec.metric,
        published=spec.published if published is None else published,
        published_images=spec.images,
        source=spec.source if published is None else "the user",
        differs=differs,
        rehearsal=any(
            given.get(name) not in (None, {}, spec.settings.get(name)) for name in OF_A_REHEARSAL
        ),
    )
    if dry_run:
        return asked.model_copy(update={"plan": make_plan(config)})
    finished = run(config)
    mark(finished.folder, spec.name)
    return beside(finished, asked)


def beside(finished: Finished, asked: Reproduction) -> Reproduction:
    """Return the published figure with ours beside it.

    Raises:
        UserError: the run has no such metric.
    """
    summary = finished.summary
    metrics = summary.metrics.plain()
    if asked.metric not in metrics:
        raise UserError(f"The run has no metric {asked.metric!r}; it has: {', '.join(metrics)}.")
    ours, images, differs = float(metrics[asked.metric]), summary.dataset.n_samples, asked.differs
    if asked.published_images not in (None, images):
        differs = [*differs, f"images: {images:,} instead of {asked.published_images:,}"]
    interval = metrics.get(f"{asked.metric}_ci95")
    found = {
        "differs": differs,
        "ours": ours,
        "interval": tuple(interval) if interval else None,
        "images": images,
        "difference": None if asked.published is None else ours - asked.published,
        "run_id": summary.run_id,
        "results_dir": str(finished.folder),
        "evaluations_per_image": summary.cost.evaluations_per_image,
        "seconds": summary.cost.total_seconds,
    }
    return asked.model_copy(update=found)
