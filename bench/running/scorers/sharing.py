"""One backbone for many runs: loaded once, for all that use it in the same way."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.machine.environment import pick_device
from bench.running.model_run import ModelRun
from bench.running.prepare import prepare
from bench.running.prepared import Prepared
from bench.running.scorers.choose import kind_of
from bench.running.settings import RunConfig

if TYPE_CHECKING:
    from bench.running.scorers.kind import CheckedBackbone


class SharedBackbone:
    """The backbone of the last run, kept for the next one.

    Only one is in memory at a time. One that learns is made anew for every run.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._backbone: CheckedBackbone | None = None

    def of(self, prepared: Prepared, others: Iterable[RunConfig] = ()) -> CheckedBackbone | None:
        """Return the backbone of a run, loaded; None: the run makes one of its own.

        Args:
            prepared: the run.
            others: the settings of runs that will use it too. Their prompts are encoded before its
                network is loaded, so that text encoders are never in memory beside it.
        """
        if prepared.resolved.backbone.learns:
            self.free()
            return None
        key = _key(prepared)
        if self._backbone is None or key != self._key:
            self.free()
            self._backbone, self._key = _loaded(prepared, others), key
        return self._backbone

    def free(self) -> None:
        """Give its memory back."""
        device = getattr(self._backbone, "device", None)
        self._backbone, self._key = None, None
        if device is not None:  # a model, whose parts may point at each other
            from bench.engine.transfer import free_memory

            gc.collect()
            free_memory(device)


def sharing(prepared: Prepared, shared: SharedBackbone, others: Iterable[RunConfig]) -> ModelRun:
    """Return a run that takes its backbone from `shared`, and leaves it there for others."""
    return ModelRun(prepared, lambda: shared.of(prepared, others))


def _key(prepared: Prepared) -> object:
    """Return all that decides how a backbone is loaded."""
    config, spec, weights = prepared.config, prepared.resolved.backbone, prepared.weights
    return (
        (spec.name, spec.version, pick_device(config.device), prepared.resolved.dtype, config.tf32),
        (config.compile, config.layout, config.attention),
        (weights.location, weights.revision, weights.fingerprint) if weights else None,
        sorted(
            (name, repr(value)) for name, value in prepared.resolved.backbone_parameters.items()
        ),
    )


def _loaded(prepared: Prepared, others: Iterable[RunConfig]) -> CheckedBackbone:
    """Load a run's backbone after the prompts of all runs that will use it are encoded."""
    return kind_of(prepared.resolved).load(prepared, chain([prepared], _prepared(others)))


def _prepared(configs: Iterable[RunConfig]) -> Iterator[Prepared]:
    """Yield the runs that can be prepared; the others report their errors themselves."""
    for config in configs:
        with suppress(UserError):
            yield prepare(config, images=False)
