"""Noise levels: input, time and target of a denoiser, one row of a table per level.

    x_t = alpha · x_0 + sigma · eps        the noised latent, which the model gets as input
    time                                   the number that tells the model the noise level
    p · x_0 + q · eps                      the target, which a perfect model would predict

Noise, x_0, velocity and flow prediction are four choices of (p, q). Models whose output is negated
or rescaled, and EDM's preconditioning, are others. The rest of the toolkit does not depend on the
type of prediction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import exp
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Column = NDArray[np.float64]
PATH_TOLERANCE = 1e-6  # of alpha² + sigma², or alpha + sigma, around 1


@dataclass(frozen=True)
class Levels:
    """The T noise levels of a denoiser, one row each, in the order of their noise.

    Attributes:
        alpha: factor of the clean latent x_0, float64 [T].
        sigma: factor of the noise eps, float64 [T].
        time: the model's time, [T], int64 or float64, on any scale, ascending or descending.
        p: factor of x_0 in the target, float64 [T].
        q: factor of eps in the target, float64 [T].
        progress: the model's time as a fraction in [0, 1], float64 [T], for weights that are a
            function of time; None if it has none.

    Raises:
        ValueError: if columns are empty or differ in length, values are not finite, alpha or sigma
            is negative, the signal-to-noise ratio is not monotone, or a target is a multiple of the
            input.
    """

    alpha: Column
    sigma: Column
    time: NDArray[Any]
    p: Column
    q: Column
    progress: Column | None = None

    def __post_init__(self) -> None:
        for name, values in self.columns().items():
            column = np.asarray(values)
            is_whole = name == "time" and np.issubdtype(column.dtype, np.integer)
            object.__setattr__(self, name, column.astype(np.int64 if is_whole else np.float64))
        self._check()

    def _check(self) -> None:
        for name, column in self.columns().items():
            if column.ndim != 1 or len(column) != len(self) or not len(self):
                raise ValueError(
                    f"level table: {name} has shape {column.shape} and alpha {self.alpha.shape};"
                    " expected columns of one number per level"
                )
            if not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column))[0])
                raise ValueError(
                    f"level table: {name} must be finite, got {column[row]} at level {row}"
                )
        if (self.alpha < 0).any() or (self.sigma < 0).any():
            raise ValueError("level table: alpha and sigma must not be negative")
        # Unlike the ratio, the angle of (alpha, sigma) is finite everywhere.
        steps = np.diff(np.arctan2(self.sigma, self.alpha))
        direction = steps.sum() or 1.0  # its sign; 0 if the last level is the first
        turned = np.flatnonzero(steps * direction < 0)
        if turned.size:
            raise ValueError(
                "level table: the signal-to-noise ratio must be monotone, and changes direction"
                f" between levels {turned[0]} and {turned[0] + 1}"
            )
        if (empty := np.flatnonzero(self.determinant == 0)).size:
            raise ValueError(
                f"level table: at level {empty[0]} the target p·x_0 + q·eps is a multiple of x_t,"
                " so predicting it needs no knowledge of the image"
            )

    def __len__(self) -> int:
        return len(self.alpha)

    @property
    def determinant(self) -> Column:
        """p·sigma − q·alpha, float64 [T].

        At a fixed x_t, d eps = −(alpha / sigma) d x_0, so the target changes by (p·sigma − q·alpha)
        / sigma · d x_0.
        """
        return self.p * self.sigma - self.q * self.alpha

    @property
    def snr(self) -> Column:
        """Signal-to-noise ratio alpha² / sigma², float64 [T]; inf without noise."""
        with np.errstate(divide="ignore"):
            return np.square(self.alpha / self.sigma)

    def velocity(self) -> tuple[Column, Column]:
        """Return the pair (p, q) of the velocity `v`.

        On a straight path (alpha + sigma = 1) the velocity is eps − x_0, otherwise the rotation
        (alpha · eps − sigma · x_0) / sqrt(alpha² + sigma²) of Salimans & Ho (2022).
        """
        if np.abs(self.alpha + self.sigma - 1).max() < PATH_TOLERANCE:
            return -np.ones(len(self)), np.ones(len(self))
        square = np.square(self.alpha) + np.square(self.sigma)
        norm = np.where(np.abs(square - 1) < PATH_TOLERANCE, 1.0, np.sqrt(square))
        return -self.sigma / norm, self.alpha / norm

    def rows(self, chosen: NDArray[np.int64]) -> Self:
        """Return the table of the rows with these indices, which may repeat."""
        return replace(self, **{name: column[chosen] for name, column in self.columns().items()})

    def answering(self, p: Column, q: Column) -> Self:
        """Return the same levels for a model with the target p·x_0 + q·eps."""
        return replace(self, p=p, q=q)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name, without an absent `progress`."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: column for name, column in columns.items() if column is not None}


def answer_of(kind: str, alpha: Column, sigma: Column) -> tuple[Column, Column]:
    """Return the pair (p, q) of a prediction type, given alpha and sigma, float64 [T] each.

    The types are called as in diffusers: `epsilon`, `sample` (x_0), `v_prediction` (alpha · eps −
    sigma · x_0) and `flow` (eps − x_0).

    Raises:
        ValueError: if `kind` is another type.
    """
    zeros, ones = np.zeros_like(alpha), np.ones_like(alpha)
    kinds = {
        "epsilon": (zeros, ones),
        "sample": (ones, zeros),
        "v_prediction": (-sigma, alpha),
        "flow": (-ones, ones),
    }
    if kind not in kinds:
        raise ValueError(f"prediction type must be one of {', '.join(kinds)}, got {kind!r}")
    return kinds[kind]


def diffusion_levels(alphas_cumprod: ArrayLike, prediction_type: str) -> Levels:
    """Return the levels of a DDPM-like schedule with integer timesteps 0 … T − 1.

    >>> diffusion_levels([0.99, 0.5, 0.2], "epsilon").snr.round(2).tolist()
    [99.0, 1.0, 0.25]

    `alphas_cumprod` is alpha², float [T], descending: an attribute of diffusers' schedulers. The
    `prediction_type` is `epsilon`, `sample` or `v_prediction`. Levels are computed in float64. The
    reference implementation computes them in float16, which is wrong by 7 % at t = 0 and 1.
    """
    abar = np.asarray(alphas_cumprod).astype(np.float64)  # a tensor cannot be copied by asarray
    alpha, sigma = np.sqrt(abar), np.sqrt(1.0 - abar)
    steps = np.arange(len(abar))
    return Levels(alpha, sigma, steps, *answer_of(prediction_type, alpha, sigma), steps / len(abar))


def flow_levels(
    config: Mapping[str, Any], mu: float | None = None, scale: float = 1000.0, reverse: bool = False
) -> Levels:
    """Return the levels of a rectified flow, as many as its scheduler's config has.

    >>> flow_levels({"num_train_timesteps": 4, "shift": 3.0}).time.round().tolist()
    [500.0, 750.0, 900.0, 1000.0]

    x_t = (1 − sigma) x_0 + sigma eps, and the target is eps − x_0. The table is the scheduler's
    *initial* one, because `set_timesteps` would shift a table that the constructor already shifted.

    Args:
        config: config of a diffusers `FlowMatchEulerDiscreteScheduler`.
        mu: shift for the resolution, as the pipeline's `calculate_shift` returns it, if the
            config has `use_dynamic_shifting`.
        scale: the model's time is scale · sigma: 1000 for SD 3, 1 for FLUX.
        reverse: the model's time is scale · (1 − sigma), as in Lumina.

    Raises:
        ValueError: if `mu` is missing or superfluous, or the config warps the table in another way.
    """
    warps = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas")
    if warped := [name for name in warps if config.get(name)]:
        raise ValueError(
            f"flow schedule: {warped[0]} changes the sampler's levels, not the model's"
        )
    dynamic = bool(config.get("use_dynamic_shifting"))
    if dynamic != (mu is not None):
        problem = "needs mu, the resolution's shift" if dynamic else "has a fixed shift and no mu"
        raise ValueError(f"flow schedule: this config {problem}")
    count = int(config["num_train_timesteps"])
    if mu is None:
        shift = float(config["shift"])
    else:  # diffusers' `time_shift`: the fixed shift's formula with e^mu, or mu, in its place
        shift = mu if config.get("time_shift_type") == "linear" else exp(mu)
    even = np.arange(1, count + 1) / count
    scaled = 1 + (shift - 1) * even
    alpha, sigma = (1 - even) / scaled, shift * even / scaled  # they sum to 1
    time = scale * (alpha if reverse else sigma)
    return Levels(alpha, sigma, time, *answer_of("flow", alpha, sigma), sigma)


def edm_levels(sigmas: NDArray[Any], sigma_data: float = 0.5) -> Levels:
    """Return the levels of a network F with EDM's preconditioning (Karras et al., 2022, table 1).

    >>> edm_levels(np.array([0.05, 0.5, 5.0])).time.round(3).tolist()
    [-0.749, -0.173, 0.402]

    D(x; s) = c_skip x + c_out F(c_in x; ln(s) / 4) with x = x_0 + s eps. F itself gets c_in x as
    input and predicts (x_0 − c_skip x) / c_out. `sigmas` are the noise levels s, float [T],
    ascending, and `sigma_data` is the standard deviation of the clean data. With size² = s² +
    sigma_data², c_in is 1 / size, c_skip (sigma_data / size)², and c_out s · sigma_data / size.
    """
    s = np.asarray(sigmas, np.float64)
    size = np.sqrt(s**2 + sigma_data**2)
    return Levels(1 / size, s / size, np.log(s) / 4, s / (sigma_data * size), -sigma_data / size)
