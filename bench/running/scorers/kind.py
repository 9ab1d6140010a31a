"""Base class of the kinds of backbones: everything in a run that depends on the kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.contracts.decision import Engine
from bench.contracts.levels import Levels
from bench.contracts.strategy import Ints, Problem
from bench.discovery.targets import make
from bench.errors import UserError
from bench.inputs.replaced import TEXT_ONLY
from bench.inputs.templates import Columns, make_columns
from bench.machine.environment import pick_device
from bench.running.prepared import Prepared
from bench.running.resolve import Resolved
from bench.store.identity import ScoringIdentity

if TYPE_CHECKING:
    from bench.engine.classifying import CheckedClassifier
    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.likelihoods import CheckedLikelihood

    CheckedBackbone = CheckedDenoiser | CheckedClassifier | CheckedLikelihood


class ScorerKind(ABC):
    """What a run does differently for a denoiser, a classifier and a likelihood."""

    one_draw: ClassVar[bool] = False  # whether an image is scored once, without noise
    batches_cells: ClassVar[bool] = False
    """Whether cells of many images share a batch, whose speed can be measured."""

    def draws(self, resolved: Resolved) -> int:
        """Return N, the number of draws of a run."""
        return 1 if self.one_draw else int(resolved.decider.parameters["draws"])

    def columns(self, resolved: Resolved, classes: Ints) -> Columns:
        """Return the columns that a strategy compares; `classes`, int64 [P], are the prompts'."""
        return make_columns(classes, resolved.config.template_rule)

    def problem(
        self, prepared: Prepared, columns: Columns, levels: Levels | None = None
    ) -> Problem:
        """Return the problem of an image; `levels` is None if unknown yet, or if there are none."""
        n_draws, parents = self.draws(prepared), prepared.prompts.parents
        return Problem(
            columns.class_of_column,
            np.arange(n_draws),
            np.ones(n_draws),
            prepared.config.seed,
            cell_cost=columns.per_column,
            parents=None if parents is None else np.array(parents, dtype=np.int64),
        )

    def check(self, prepared: Prepared, scores_texts: bool = False) -> None:
        """Raise UserError if settings or the strategy do not fit the backbone's class."""
        if prepared.config.control == TEXT_ONLY and not scores_texts:
            raise UserError(
                f"--control {TEXT_ONLY} needs a likelihood with prior(texts, draws), which backbone"
                f" {prepared.backbone_name!r} is not. --control grey works with every backbone."
            )

    def check_draws(self, prepared: Prepared) -> None:
        """Raise UserError if levels, weights or noise of the user do not fit the backbone."""
        return None

    @abstractmethod
    def scoring(self, prepared: Prepared) -> ScoringIdentity:
        """Return the identity of a run's errors and draws."""

    @abstractmethod
    def checked(self, resolved: Resolved, backbone: Any) -> CheckedBackbone:
        """Return a plugin's backbone with checks of every output."""

    def make(self, prepared: Prepared) -> CheckedBackbone:
        """Return the caller's backbone or a new one, whose network may not be loaded yet."""
        backbone = prepared.loaded
        if backbone is None:
            backbone = make(
                prepared.backbone,
                prepared.weights,
                device=pick_device(prepared.config.device),
                dtype=prepared.dtype,
                **prepared.backbone_parameters,
            )
        checked = self.checked(prepared, backbone)
        checked.key = prepared.backbone_key
        return checked

    def backbone_of(self, prepared: Prepared, loaded: CheckedBackbone | None) -> CheckedBackbone:
        """Return the loaded backbone, which must be the run's, or else a new one."""
        backbone = loaded or self.make(prepared)
        check_key(prepared, backbone)
        return backbone

    def load(self, prepared: Prepared, encoded_first: Iterable[Prepared] = ()) -> CheckedBackbone:
        """Return the backbone with its network loaded and set up.

        Prompts of `encoded_first` are encoded before, while the network is not in memory yet.
        """
        return self.make(prepared)

    def text_files(self, prepared: Prepared) -> list[Path]:
        """Return the cache files of the run's encoded prompts, if it has any."""
        return []

    @abstractmethod
    def open_engine(self, prepared: Prepared, backbone: CheckedBackbone | None = None) -> Engine:
        """Return the engine that scores with `backbone`, by default a new one."""


def check_key(prepared: Prepared, backbone: CheckedBackbone) -> None:
    """Raise RuntimeError if a run would score or encode prompts with another run's backbone."""
    if backbone.key != prepared.backbone_key:
        raise RuntimeError(f"A run of {prepared.backbone_key} was given {backbone.key}.")


def chosen_batch_size(resolved: Resolved) -> int | None:
    """Return the user's batch size; None if it is automatic."""
    chosen = resolved.config.batch_size
    return None if chosen == "auto" else chosen
