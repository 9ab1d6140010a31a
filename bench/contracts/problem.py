"""The data types that strategy and engine exchange: problem, requests, replies and outcome."""

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
    """What a strategy has to decide about an image. It is the same for all images of a run.

    Its arrays are read-only.

    Attributes:
        class_of_prompt: class index of each prompt, int64 [P].
        timesteps: timestep of each draw, int64 [N]. A classifier backbone has one draw.
        weights: weight of each draw in a score, float64 [N]; ones without a weighting.
        seed: seed for strategies that make random choices.
        can_linearise: whether `Linearise` requests are answered, by a backbone with gradients or
            from a recording.
        reduction: how the errors of a prompt on its draws are combined into its score; see
            `bench.contracts.decision`. A strategy may assume the mean: with another reduction only
            strategies with `same_draws` are used, and their scores are recomputed.
        cell_cost: cost of one cell, in evaluations. It is above 1 if several templates make up one
            error, or guidance predicts the empty prompt again for each cell.
        null_cost: additional cost of each draw of a request, in evaluations, for a prediction of
            the empty prompt that all cells of an image and draw share.
        linearisation_cost: cost of one linearised draw, in evaluations.
        antithetic: whether draws 2k and 2k + 1 share a level and have opposite noise.
        parents: the tree of classes, int64 [C + J], for strategies with `uses_hierarchy`: the
            parent of each of C classes and J inner nodes; inner nodes are numbered from C, and -1
            means no parent. A prompt of an inner node has the node's number as its class. None
            without a tree.
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
        """C, the number of classes, not counting inner nodes of a tree."""
        inner = 0 if self.parents is None else len(np.unique(self.parents[self.parents >= 0]))
        return len(np.unique(self.class_of_prompt)) - inner

    def pairs(self, draws: Ints) -> Ints | None:
        """Return the pair of each draw, int64 [n]; None if draws are not paired."""
        return draws // 2 if self.antithetic else None

    def price(self, prompts: int, draws: int) -> float:
        """Return the cost in evaluations of one request for that many prompts and draws."""
        return draws * (prompts * self.cell_cost + self.null_cost)


@dataclass(frozen=True)
class Evaluate:
    """A request for a block of cells: each of `prompts` on each of `draws`, int64 indices."""

    prompts: Ints
    draws: Ints


@dataclass(frozen=True)
class Linearise:
    """A request for first-order errors of *all* prompts on some draws, at one gradient per draw.

    The error e of a cell is a differentiable function of the conditioning c. At the mixture c_0 =
    sum_p mixture_p c_p, a forward and a backward pass give e(c_0) and its gradient g. Then e(c_0) +
    <g, c_p - c_0> approximates the error of every prompt p, at a cost that does not depend on the
    number of prompts. Diffusion-TTA (Prabhudesai et al., NeurIPS 2023) descends this gradient.

    It may only be requested if `Problem.can_linearise`. `draws` are indices, int64 [n], and the
    `mixture`, float64 [P], must sum to 1.
    """

    draws: Ints
    mixture: Floats


@dataclass(frozen=True)
class Reply:
    """The reply to a request, with its cost in evaluations.

    `values` are errors, float32 [len(prompts), len(draws)], or first-order errors, [P, len(draws)].
    """

    values: NDArray[np.float32]
    cost: float


@dataclass(frozen=True)
class Outcome:
    """A strategy's decision about one image.

    Attributes:
        ranking: class indices, best first, int64 [C].
        scores: score of the best prompt of each class, float64 [C]; lower is better.
        draws: number of draws behind each of these scores, int64 [C].
        margin: mean difference between the errors of runner-up and winner on the draws they share.
        margin_stderr: standard error of the margin.
        confidence: probability, assuming a normal margin, that the winner's expected error is below
            the runner-up's; NaN if unknown.
        decided_by: what ended the image, if the strategy reports it: `bound` (its test left one
            class), `ceiling` (a limit on the cost stopped it or left prompts out, so no promise
            holds), `exhausted` (all draws were used) or `tie` (the best classes have equally many
            votes, or differ by no more than the user's tolerance).
    """

    ranking: Ints
    scores: Floats
    draws: Ints
    margin: float
    margin_stderr: float
    confidence: float
    decided_by: str | None = None
