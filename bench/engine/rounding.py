"""What a precision adds to the errors of float32, and whether that can change decisions.

A decision rests on the difference between the errors of a prompt and of the best prompt, averaged
over the draws. The difference is computed in a precision and in float32, for a few images, prompts
and pairs of draws of nearly the same noise level, and gives two figures:

* Noise: the standard deviation of what the precision adds, in standard deviations of a draw within
  a level. With a noise of r, a score needs r² more draws: 1 % at 0.1, and 9 % at 0.3.
* Bias: the mean of what the precision adds to a prompt. More draws do not reduce the bias, so its
  bounds are compared with the standard error of a full sweep.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from math import sqrt
from typing import Any

import numpy as np
from typing_extensions import override

from bench.contracts.strategy import Floats, Ints
from bench.engine.batching import Batch
from bench.engine.scoring import Evaluator
from bench.engine.transfer import inferring
from bench.machine.libraries import Tensor, stats, torch
from bench.machine.precision import Precision

MAX_IMAGES, MAX_PROMPTS, PAIRS = 8, 10, 8
MIN_IMAGES, MIN_PROMPTS, MIN_DRAWS = 2, 2, 4
CELLS_AT_ONCE = 8
WORST_NOISE = 0.3
BOUND_LEVEL = 0.95  # simultaneous, for all prompts


def affordable(evaluations: float, prompts: int, draws: int) -> tuple[int, int]:
    """Return the images and prompts that two passes over `draws` can afford for `evaluations`.

    Images are reduced first. Both are 0 if even two images with two prompts cost more.
    """
    cells, prompts = int(evaluations // (2 * draws)), min(prompts, MAX_PROMPTS)
    if draws < MIN_DRAWS or prompts < MIN_PROMPTS or cells < MIN_IMAGES * MIN_PROMPTS:
        return 0, 0
    prompts = min(prompts, cells // MIN_IMAGES)
    return min(MAX_IMAGES, cells // prompts), prompts


def paired_draws(draws: int, antithetic: bool) -> Ints:
    """Return at most 8 pairs of draws, int64 [2 · pairs], over all levels of a plan.

    The two draws of a pair have the same noise level, or neighbouring ones, and independent noise.
    The halves of an antithetic pair are not independent, so only the first half is used.
    """
    step = 2 if antithetic else 1
    places = max(1, draws // (2 * step))
    pairs = min(PAIRS, places)
    middles = (np.arange(pairs) * 2 + 1) * places // (2 * pairs)  # of `pairs` equal parts
    first = middles * (2 * step)
    chosen = np.stack([first, first + step], axis=1).ravel()
    return chosen[chosen < draws].astype(np.int64)


@dataclass(frozen=True)
class Rounding:
    """What a precision adds to the errors of float32, in standard deviations of a draw.

    `bias` and `least_bias` are the upper and the lower bound (95 %, for all prompts at once) of the
    largest absolute mean addition of a prompt.
    """

    noise: float
    bias: float | None  # None if no prompt has an addition on two images
    least_bias: float
    decisions: int  # images whose best prompt, among those compared, differs
    images: int
    prompts: int
    draws: int
    arithmetic_alone: bool = False  # whether float32 used the same rounded weights

    def shown(self, draws: int) -> str:
        """Return whether the bias is shown below the standard error of a sweep of so many draws."""
        if self.bias is not None and self.bias * sqrt(draws) < 1:
            return "shown below it"
        return "shown above it" if self.least_bias * sqrt(draws) > 1 else "not shown"

    def report(self, draws: int) -> dict[str, Any]:
        """Return the document that is stored with a run of so many draws."""
        shared = {k: v for k, v in asdict(self).items() if k not in ("bias", "least_bias")}
        most = None if self.bias is None else self.bias * sqrt(draws)
        return {**shared, "bias": self.shown(draws), "bias_at_most": most}

    def problem(self, precision: Precision, draws: int) -> str | None:
        """Return what is wrong, as a sentence; None if nothing was found."""
        if self.noise > WORST_NOISE:
            return (
                f"In {precision}, rounding adds {self.noise:.2g} standard deviations of a draw to"
                " the difference between two prompts, so that a score is as exact as in float32"
                f" with {1 + self.noise**2:.2g} times the draws. --dtype float32 avoids it."
            )
        if self.shown(draws) == "shown above it":
            return (
                f"In {precision}, rounding shifts the error of a prompt by more than the standard"
                f" error of the full sweep (at least {self.least_bias * sqrt(draws):.2g} times as"
                " much): decisions may differ from those in float32. --dtype float32 avoids it."
            )
        return None


def compare(rounded: Floats, exact: Floats, arithmetic_alone: bool = False) -> Rounding:
    """Return what a precision adds, from errors float64 [images, prompts, draws] of `paired_draws`.

    The reference of an image is its best prompt in float32. The mean additions of images count as
    independent, so that the bounds hold if they vary among images.
    """
    images, prompts, draws = exact.shape
    best = exact.mean(axis=2).argmin(axis=1)
    image = np.arange(images)
    wanted = exact - exact[image, best][:, None]
    added = rounded - rounded[image, best][:, None] - wanted
    others = np.arange(prompts) != best[:, None]  # bool [images, prompts]
    spread = sqrt(np.mean((wanted[others][:, ::2] - wanted[others][:, 1::2]) ** 2) / 2)
    own = added - added.mean(axis=2, keepdims=True)
    noise = sqrt(np.mean(own[others] ** 2) * draws / (draws - 1))
    means = np.where(others, added.mean(axis=2), np.nan)
    count = others.sum(axis=0)
    means, count = means[:, count > 1], count[count > 1]
    quantile = stats.t.ppf(1 - (1 - BOUND_LEVEL) / max(1, len(count)), count - 1)
    size, error = np.abs(np.nanmean(means, axis=0)), np.nanstd(means, axis=0, ddof=1)
    margin = quantile * error / np.sqrt(count)
    spread = spread or np.finfo(np.float64).tiny
    return Rounding(
        noise=noise / spread,
        bias=float((size + margin).max()) / spread if len(count) else None,
        least_bias=float((size - margin).max(initial=0.0)) / spread,
        decisions=int((rounded.mean(axis=2).argmin(axis=1) != best).sum()),
        images=images,
        prompts=prompts,
        draws=draws,
        arithmetic_alone=arithmetic_alone,
    )


@inferring
def errors_of(
    evaluator: Evaluator, latents: Tensor, images: Sequence[str], prompts: Ints, draws: Ints
) -> Floats:
    """Return the errors of these images, prompts and draws, float64 [images, prompts, draws].

    `latents` are float32 [images, C, H, W], and `prompts` rows of the conditioning. With guidance,
    each cell has a null prediction of its own. torch.OutOfMemoryError passes.
    """
    indices = np.array(list(product(range(len(images)), prompts, draws)), np.int64).T[[1, 2, 0]]
    every = Batch(indices, latents.to(evaluator.backbone.device), list(images))
    parts = []
    for start in range(0, len(every), CELLS_AT_ONCE):
        batch = every.part(slice(start, start + CELLS_AT_ONCE))
        cells = evaluator.cells(batch)
        conditioning = evaluator.prompts.take(batch.cells[0], cells.prompt)
        parts.append(evaluator.errors_at(cells, conditioning).cpu())
    errors = torch.cat(parts).double().numpy()
    return np.asarray(errors.reshape(len(images), len(prompts), len(draws)))


@contextmanager
def upcast() -> Iterator[None]:
    """Compute every operation in float32, with the weights as they are, one operation at a time.

    A half-precision tensor is converted when an operation reads it, so no second copy of a network
    is in memory. A compiled network runs uncompiled.
    """
    from torch.overrides import TorchFunctionMode

    from bench.machine.libraries.private_torch import tree_map

    halves = (torch.float16, torch.bfloat16)

    def wide(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.float() if value.dtype in halves else value
        return torch.float32 if value in halves and isinstance(value, torch.dtype) else value

    class Upcast(TorchFunctionMode):
        @override
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if getattr(func, "__name__", "") in ("__get__", "float"):  # attributes, such as dtype
                return func(*args, **(kwargs or {}))
            return func(*tree_map(wide, args), **tree_map(wide, kwargs or {}))

    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else None
    with eager or nullcontext(), Upcast():
        yield
