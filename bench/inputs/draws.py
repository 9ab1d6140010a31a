"""Draws: the fixed pairs (timestep, noise) that every prompt and every image of a run shares."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError

Ints = NDArray[np.int64]


PLANS = ("grid", "repeated", "antithetic")


@dataclass(frozen=True)
class DrawPlan:
    """Which draws a run makes.

    Attributes:
        name: `grid`: every draw a timestep of its own, N equal strata. `repeated`: two draws a
            timestep, on a grid of N / 2. `antithetic`: the same, the second with the noise of the
            first negated (Hammersley & Morton, 1956).
        first, end: the half-open range of timesteps, as if the others were not there: the score is
            then the mean over this range, another estimand than the whole. None: all of them.
    """

    name: str = "grid"
    first: int = 0
    end: int | None = None

    def timesteps(self, n_draws: int, n_timesteps: int) -> Ints:
        """Return int64 [N], ascending.

        Raises:
            UserError: the range reaches beyond the model's timesteps.
        """
        end = n_timesteps if self.end is None else self.end
        if end > n_timesteps:
            raise UserError(
                f"--plan: the range {self.first}-{end} ends beyond the model's {n_timesteps}"
                " timesteps."
            )
        if self.name == "grid":
            return self.first + timestep_grid(n_draws, end - self.first)
        pairs = timestep_grid((n_draws + 1) // 2, end - self.first)
        return self.first + np.repeat(pairs, 2)[:n_draws]

    def noise(self, seed: int, n_draws: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return the noise of all draws, float32 [N, *shape]."""
        bank = noise_bank(seed, n_draws, shape)
        if self.name == "antithetic":
            seconds = n_draws // 2
            bank[1::2] = -bank[0 : 2 * seconds : 2]
        return bank


def parse_plan(text: str) -> DrawPlan:
    """Return the plan of `NAME` or `NAME:FIRST-END`, such as `grid`, `grid:100-700`, `antithetic`.

    Raises:
        ValueError: the text is not of that form.
    """
    found = re.fullmatch(r"(\w+)(?::(\d+)-(\d+))?", text)
    if not found or found[1] not in PLANS or (found[2] and int(found[2]) >= int(found[3])):
        raise ValueError(
            f"{text} is no draw plan: one of {', '.join(PLANS)}, and perhaps a half-open range"
            " of timesteps, as in grid:100-700"
        )
    return DrawPlan(found[1], int(found[2] or 0), int(found[3]) if found[3] else None)


def timestep_grid(n_draws: int, n_timesteps: int) -> Ints:
    """Return int64 [n_draws]: t_k = floor((k + 1/2) · T / N), the middle of N equal strata.

    For T = 1000 and N = 500 this is 1, 3, …, 999, the reference implementation's grid. Unlike the
    reference's, it reaches the last timesteps also where N does not divide T.
    """
    k = np.arange(n_draws, dtype=np.int64)
    return (2 * k + 1) * n_timesteps // (2 * n_draws)


def sub_grid(n: int, n_draws: int) -> Ints:
    """Return int64 [min(n, N)]: draw indices floor((j + 1/2) · N / n), evenly over the N draws."""
    return timestep_grid(min(n, n_draws), n_draws)


def noise(seed: int, draw: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the noise of one draw, float32 `shape`, standard normal.

    It depends on (seed, draw) alone: a counter-based generator (Philox) keyed by both, on the
    CPU, so that order, batch size, device, workers, resume and limits change nothing.
    """
    key = np.array([seed, draw], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    return generator.standard_normal(shape, dtype=np.float32)


def noise_bank(seed: int, n_draws: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the noise of all draws, float32 [N, *shape]."""
    return np.stack([noise(seed, draw, shape) for draw in range(n_draws)])


def read_noise(
    path: Path, n_draws: int, shape: tuple[int, ...] | None = None
) -> NDArray[np.float32]:
    """Read a noise bank from a file: safetensors with tensor `noise`, or a `torch.save`d tensor.

    Args:
        path: the file.
        n_draws: N, the first dimension wanted.
        shape: (C, H, W) of the backbone's latents; None: not checked yet.

    Returns:
        float32 [N, C, H, W].

    Raises:
        UserError: the file is missing, unreadable or of the wrong shape or type.
    """
    if not path.is_file():
        raise UserError(f"--noise: there is no file {path}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            bank = load_file(path)["noise"]
        else:
            import torch

            bank = torch.load(path, map_location="cpu", weights_only=True).numpy()
    except Exception as error:
        raise UserError(
            f"--noise: {path} is neither a safetensors file with a tensor named 'noise' nor a"
            f" torch.save'd tensor ({type(error).__name__}: {error})."
        ) from error
    wanted = "(N, C, H, W)" if shape is None else str((n_draws, *shape))
    if (
        bank.dtype != np.float32
        or bank.ndim != 4
        or len(bank) != n_draws
        or (shape is not None and bank.shape[1:] != shape)
    ):
        raise UserError(
            f"--noise: {path} holds {bank.dtype} {bank.shape}; this run wants float32 {wanted}"
            f" with N = {n_draws} draws."
        )
    if not np.isfinite(bank).all():
        raise UserError(f"--noise: {path} holds values that are not finite.")
    return np.asarray(bank)
