"""Draws: fixed pairs (noise level, noise), shared by all prompts of an image."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from typing_extensions import override

from bench.contracts.draw_order import timestep_grid
from bench.contracts.strategy import Floats32, Ints
from bench.errors import UserError
from bench.machine.libraries import torch

PLANS = ("grid", "repeated", "antithetic")
MAX_DRAWS = 100_000  # a hundred per level of a schedule of 1,000
MAX_NOISE_BYTES = 4 * 2**30  # bytes of the noise of all draws, which is kept in memory


@dataclass(frozen=True)
class DrawPlan:
    """The levels of a run's draws, and how draws are paired.

    Level indices run from `first` up to `end`, exclusive, or to the last one if `end` is None. The
    mean error over some levels is another estimand than that over all levels.
    """

    name: str = "grid"
    """Name of the plan, one of `PLANS`.

    `grid`: every draw has a level of its own, N equal strata. `repeated`: two draws per level, on a
    grid of N / 2. `antithetic`: as `repeated`, but the second draw has the negated noise of the
    first (Hammersley & Morton, 1956)."""
    first: int = 0
    end: int | None = None
    level_list: tuple[int, ...] | None = None  # level indices instead of a range, ascending

    @override
    def __str__(self) -> str:
        if self.level_list is not None:
            return f"{self.name}:{','.join(map(str, self.level_list))}"
        return self.name if self.end is None else f"{self.name}:{self.first}-{self.end}"

    @property
    def chooses_levels(self) -> bool:
        """Whether it names levels; otherwise draws may have every level."""
        return self.end is not None or self.level_list is not None

    def find_levels(self, n_levels: int) -> Ints:
        """Return the ascending level indices of draws, int64 [M] (UserError beyond the model's)."""
        if self.level_list is None:
            levels: Sequence[int] = range(self.first, n_levels if self.end is None else self.end)
            asked = f"the range {self.first}-{self.end}"
        else:
            levels, asked = self.level_list, f"level {self.level_list[-1]}"
        if levels[-1] >= n_levels:
            raise UserError(
                f"--levels: {asked} reaches beyond the model's {n_levels} levels,"
                f" 0 … {n_levels - 1}."
            )
        return np.array(levels, dtype=np.int64)

    def assign_levels(self, n_draws: int, n_levels: int) -> Ints:
        """Return the level index of each draw, ascending, int64 [N]; raises as `find_levels`."""
        available = self.find_levels(n_levels)
        if self.name == "grid":
            return available[timestep_grid(n_draws, len(available))]
        pairs = timestep_grid((n_draws + 1) // 2, len(available))
        return available[np.repeat(pairs, 2)[:n_draws]]  # without the second half of an odd pair

    def make_noise(self, seed: int, n_draws: int, shape: tuple[int, ...]) -> Floats32:
        """Return the noise of all draws, float32 [N, *shape] (UserError over `MAX_NOISE_BYTES`)."""
        size = 4 * n_draws * math.prod(shape)
        if size > MAX_NOISE_BYTES:
            raise UserError(
                f"draws={n_draws}: the noise of {n_draws} draws of shape {shape} takes"
                f" {size / 2**30:,.1f} GiB; at most {MAX_NOISE_BYTES // 2**30} GiB are possible."
                " Use fewer draws, or a lower --resolution."
            )
        bank = np.empty((n_draws, *shape), np.float32)
        for draw in range(n_draws):
            bank[draw] = self.make_draw_noise(seed, draw, shape)
        return bank

    def make_draw_noise(
        self, seed: int, draw: int, shape: tuple[int, ...], sample_id: str | None = None
    ) -> Floats32:
        """Return the noise of one draw, float32 of `shape`; see the function `generate_noise`."""
        if self.name == "antithetic" and draw % 2:
            return -generate_noise(seed, draw - 1, shape, sample_id)
        return generate_noise(seed, draw, shape, sample_id)


def parse_plan(text: str) -> DrawPlan:
    """Parse `NAME[:LEVELS]`, such as `grid:100-700` or `antithetic`, or raise ValueError."""
    name, colon, levels = text.partition(":")
    if name in PLANS and not colon:
        return DrawPlan(name)
    if name in PLANS and (bounds := re.fullmatch(r"(\d+)-(\d+)", levels)):
        first, end = map(int, bounds.groups())
        if first < end:
            return DrawPlan(name, first, end)
    if name in PLANS and re.fullmatch(r"\d+(,\d+)*", levels):
        level_list = tuple(map(int, levels.split(",")))
        if level_list == tuple(sorted(set(level_list))):
            return DrawPlan(name, level_list=level_list)
    raise ValueError(
        f"{text} is not a draw plan: expected {', '.join(PLANS)}, optionally with levels: a"
        " half-open range, as in grid:100-700, or an ascending list, as in grid:32,65,98"
    )


def parse_levels(text: str) -> DrawPlan:
    """Parse `grid` (all levels), `grid:100-700` (half-open) or `32,65,98`, or raise ValueError."""
    try:
        return parse_plan(text if re.match(r"grid(:|$)", text) else f"grid:{text}")
    except ValueError:
        raise ValueError(
            f"{text} has no valid levels: expected grid (all), a half-open range, as in"
            " grid:100-700, or an ascending list of indices, as in 32,65,98"
        ) from None


def combine_plan(plan: DrawPlan | None, levels: DrawPlan | None, default: DrawPlan) -> DrawPlan:
    """Combine `--plan` and `--levels` with the backbone's own plan, `default`.

    Pairing and levels are independent. A pairing without levels keeps the levels of `default`, but
    `grid` alone means all levels. Raises UserError if both options choose the levels.
    """
    if levels is not None:
        if plan is not None and plan.chooses_levels:
            raise UserError(f"--plan {plan} and --levels {levels} both choose the levels.")
        return replace(levels, name=(plan or default).name)
    if plan is None or plan.name == "grid" or plan.chooses_levels:
        return plan or default
    return replace(default, name=plan.name)


def generate_noise(
    seed: int, draw: int, shape: tuple[int, ...], sample_id: str | None = None
) -> Floats32:
    """Return the noise of one draw, float32 of `shape`, standard normal.

    It depends only on (seed, draw) and, if given, the sample id. A counter-based generator (Philox)
    is keyed by seed and draw, on the CPU, so that order, batch size, device, workers, resumption
    and limits do not matter. The sample id sets the upper half of the counter, which counting never
    reaches.
    """
    key = np.array([seed, draw], dtype=np.uint64)
    counter = np.zeros(4, dtype=np.uint64)
    if sample_id is not None:
        digest = hashlib.sha256(sample_id.encode("utf-8", "surrogatepass")).digest()
        counter[2:] = np.frombuffer(digest[:16], dtype="<u8")
    generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return generator.standard_normal(shape, dtype=np.float32)


def read_noise(path: Path, n_draws: int, shape: tuple[int, ...] | None = None) -> Floats32:
    """Read a noise bank, float32 [N, C, H, W], from a safetensors or a `torch.save`d file.

    The tensor in a safetensors file must be called `noise`. `shape` is (C, H, W) of the backbone's
    latents; None skips this check. Raises UserError if the file cannot be read, the tensor has
    another dtype or shape or values that are not finite, or all values of a draw are equal.
    """
    if not path.is_file():
        raise UserError(f"--noise: there is no file {path}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            bank = load_file(path)["noise"]
        else:
            bank = torch.load(path, map_location="cpu", weights_only=True).numpy()
    except Exception as error:
        raise UserError(
            f"--noise: {path} is neither a safetensors file with a tensor named 'noise' nor a"
            f" torch.save'd tensor ({type(error).__name__})."
        ) from error
    expected = "(N, C, H, W)" if shape is None else str((n_draws, *shape))
    wanted = (n_draws, *(shape or bank.shape[1:]))
    if bank.dtype != np.float32 or bank.ndim != 4 or bank.shape != wanted:
        raise UserError(
            f"--noise: {path} holds {bank.dtype} {bank.shape}; expected float32 {expected} with"
            f" N = {n_draws} draws."
        )
    if not np.isfinite(bank).all():
        raise UserError(f"--noise: {path} holds values that are not finite.")
    flat = bank.reshape(n_draws, -1)
    constant = np.flatnonzero(flat.min(axis=1) == flat.max(axis=1))
    if len(constant):
        raise UserError(
            f"--noise: {path}: expected standard normal values; all values of draw {constant[0]}"
            f" are {flat[constant[0], 0]:g}."
        )
    return np.asarray(bank)
