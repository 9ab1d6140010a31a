"""The kinds of backbones: how runs of each are checked, identified and scored."""

from __future__ import annotations

from typing import Any, Final

from bench.contracts.specs import Scorer
from bench.running.kinds.denoiser import DenoiserKind
from bench.running.kinds.direct import ClassifierKind, LikelihoodKind
from bench.running.question import ScorerKind

KINDS: Final[dict[Scorer, ScorerKind[Any]]] = {
    "denoiser": DenoiserKind(),
    "classifier": ClassifierKind(),
    "likelihood": LikelihoodKind(),
}
