"""The kinds of backbones: how runs of each are checked, identified and scored."""

from __future__ import annotations

from typing import Final

from bench.contracts.decision import Engine
from bench.contracts.specs import Scorer
from bench.running.prepared import Prepared
from bench.running.resolve import Resolved
from bench.running.scorers.denoiser import DenoiserKind
from bench.running.scorers.direct import ClassifierKind, LikelihoodKind
from bench.running.scorers.kind import ScorerKind

KINDS: Final[dict[Scorer, ScorerKind]] = {
    "denoiser": DenoiserKind(),
    "classifier": ClassifierKind(),
    "likelihood": LikelihoodKind(),
}


def kind_of(resolved: Resolved) -> ScorerKind:
    """Return the kind of a run's backbone."""
    return KINDS[resolved.backbone.scorer]


def open_engine(prepared: Prepared) -> Engine:
    """Load a run's backbone and return the engine that fits it."""
    return kind_of(prepared).open_engine(prepared)
