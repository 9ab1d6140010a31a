"""The messages between a strategy and the engine: problem, requests, replies and outcome."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.contracts.backbone import LINEARISATION_COST

DECIDED_BY = ("bound", "ceiling", "exhausted", "tie")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """One image's question, the same for every image of a run. Its arrays are read-only.

    Attributes:
        class_of_prompt: int64 [P], the class index of each prompt.
        timesteps: int64 [N], the timestep of each draw. A classifier backbone has one draw.
        weights: float64 [N], the weight of each draw in a score; ones without a weighting.
        seed: for strategies that choose at random.
        can_linearise: whether `Linearise` is answered: the backbone offers gradients with respect
            to its conditioning, or they were recorded.
        reduction: how the errors of a prompt's draws make its score; see
            `bench.contracts.decision`. A strategy may take it for the mean: other reductions are
            for strategies with the same draws for every prompt, whose scores are replaced.
        cell_cost: cost of one cell, in evaluations: more than one where several templates make one
            error, or guidance predicts a null for every cell.
        null_cost: additional cost of each draw of a request, in evaluations, where the null's error
            is subtracted, or guidance predicts one null for all cells of an image and draw.
        linearisation_cost: cost of one linearised draw, in evaluations.
        antithetic: whether draws 2k and 2k + 1 share a level and have opposite noise.
        parents: int64 [C + J], for strategies that use a tree of classes: the inner node above each
            of C classes and of J inner nodes, which are numbered from C on; -1: none. The prompts
            of an inner node have its number as their class. None: there is no tree.
    """

    class_of_prompt: Ints
    timesteps: Ints
    weights: Floats
    seed: int = 0
    can_linearise: bool = False
    reduction: str = "mean"
    cell_cost: float = 1.0
    null_cost: float = 0.0
    linearisation_cost: float = LINEARISATION_COST
    antithetic: bool = False
    parents: Ints | None = None

    def __post_init__(self) -> None:
        arrays = ("class_of_prompt", "timesteps", "weights")
        for name in arrays if self.parents is None else (*arrays, "parents"):
            view = np.asarray(getattr(self, name)).view()
            view.setflags(write=False)
            object.__setattr__(self, name, view)

    @cached_property
    def n_classes(self) -> int:
        """C, the number of classes, without the inner nodes of a tree."""
        inner = 0 if self.parents is None else len(np.unique(self.parents[self.parents >= 0]))
        return len(np.unique(self.class_of_prompt)) - inner

    def pairs(self, draws: Ints) -> Ints | None:
        """Return the pair of each draw, int64 of the same shape; None if draws are not paired."""
        return draws // 2 if self.antithetic else None

    def price(self, prompts: int, draws: int) -> float:
        """Return the cost of a request for so many prompts on so many draws, in evaluations."""
        return draws * (prompts * self.cell_cost + self.null_cost)


@dataclass(frozen=True)
class Evaluate:
    """A block of cells: each of `prompts` on each of `draws` (int64 indices)."""

    prompts: Ints
    draws: Ints


@dataclass(frozen=True)
class Linearise:
    """The first-order error of *every* prompt on each of `draws`, for one gradient per draw.

    A cell's error e is a differentiable function of the conditioning c. At the mixture
    c_0 = sum_p mixture_p c_p, forward and backward pass give e(c_0) and its gradient g, and with
    them e(c_0) + <g, c_p - c_0> for all prompts p, at a cost that does not grow with their number
    (the gradient that Diffusion-TTA, Prabhudesai et al., NeurIPS 2023, descends).
    Only where `Problem.can_linearise`.

    Attributes:
        draws: int64 [n], draw indices.
        mixture: float64 [P], weights over the prompts that sum to one.
    """

    draws: Ints
    mixture: Floats


@dataclass(frozen=True)
class Reply:
    """The reply to a request.

    Attributes:
        values: float32 [len(prompts), len(draws)], errors; or [P, len(draws)], first-order errors.
        cost: cost of the request, in evaluations.
    """

    values: NDArray[np.float32]
    cost: float


@dataclass(frozen=True)
class Outcome:
    """The decision of a strategy on one image.

    Attributes:
        ranking: int64 [C], class indices, best first.
        scores: float64 [C], by class: the score of its best prompt (lower is better).
        draws: int64 [C], by class: the draws behind that score.
        margin: mean difference of the errors of runner-up and winner on the draws they share.
        margin_stderr: standard error of the margin.
        confidence: normal probability that the winner's expected error is below the runner-up's,
            from margin and margin_stderr; NaN where unknown.
        decided_by: what ended the image, if the strategy reports it: `bound` (its test left one
            class), `ceiling` (a limit on the cost left prompts out or ended it, so that
            nothing is promised), `exhausted` (all draws were used up) or `tie` (the best classes
            have equally many votes, or differ by no more than was said to matter).
    """

    ranking: Ints
    scores: Floats
    draws: Ints
    margin: float
    margin_stderr: float
    confidence: float
    decided_by: str | None = None
