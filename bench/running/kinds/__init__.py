"""The kinds of backbones: how runs of each are checked, identified and scored."""

from __future__ import annotations

from typing import Final

from bench.contracts.specs import Scorer
from bench.running.kinds.denoiser import DenoiserKind
from bench.running.kinds.direct import ClassifierKind, LikelihoodKind
from bench.running.question import ScorerKind

KINDS: Final[dict[Scorer, ScorerKind]] = {
    "denoiser": DenoiserKind(),
    "classifier": ClassifierKind(),
    "likelihood": LikelihoodKind(),
}
