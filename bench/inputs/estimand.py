"""The estimand: which error is averaged, in which space, and with which weights of the levels.

    --loss       distance between prediction and target: l2, l1, huber or norm
    --space      what is compared: the model's own output, eps, x_0 or v
    --weighting  weight of each noise level

At a fixed x_t, differences of eps, x_0, v and the model's output are multiples of each other, so
changing the space multiplies the error by one factor per level. Named weightings weight the squared
x_0 error, as in papers. With `l2` they are converted to the space in use: a weight w of the x_0
error is a weight w / SNR of the eps error. Other losses have no such conversion, so with them a
named weighting needs `--space sample`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from bench.contracts.levels import Column, Levels, answer_of
from bench.errors import UserError
from bench.inputs.parsing import read_csv_file

if TYPE_CHECKING:
    import torch

Space = Literal["prediction", "epsilon", "sample", "v"]
FORMULAS = ("snr", "exp", "min-snr")
Loss = Literal["l2", "l1", "huber", "norm"]
NullPer = Literal["draw", "cell"]  # whether the cells of a draw share one null for guidance


@dataclass(frozen=True)
class Weighting:
    """Weights of the noise levels."""

    name: str = "uniform"
    """Name of the weighting.

    `uniform`; `snr` (uniform in eps), `exp` (e^(number · t), with the model's time t from 0 to 1)
    or `min-snr` (capped at `number`), which weight the x_0 error; `learned` from a run; `file`.
    """
    number: float = 0.0  # the number in `exp:…` and `min-snr:…`
    weights: Mapping[int, float] | None = None
    """Level → weight of the error in the space in use, from a file or learned."""
    source: str = ""  # the file, or the run

    def __str__(self) -> str:
        """Return the text of `--weighting`."""
        if self.name in ("exp", "min-snr"):
            return f"{self.name}:{self.number:g}"
        if self.name == "learned":
            return f"learned:{self.source}"
        return self.source or self.name


def parse_weighting(text: str) -> Weighting:
    """Parse `uniform`, `snr`, `exp:-7`, `min-snr:5`, `learned:RUN` or the name of a CSV file.

    The result for `learned:RUN` has no weights yet.

    Raises:
        ValueError: the text is none of these.
        UserError: the file is invalid.
    """
    name, colon, rest = text.partition(":")
    if text in ("uniform", "snr"):
        return Weighting(text)
    if name in ("exp", "min-snr") and colon:
        try:
            number = float(rest)
        except ValueError:
            number = float("nan")
        if not isfinite(number) or (name == "min-snr" and number <= 0):
            raise ValueError(
                f"{text}: expected a number, as in exp:-7, or above 0, as in min-snr:5"
            )
        return Weighting(name, number)
    if name == "learned" and rest:
        return Weighting(name, source=rest)
    if Path(text).is_file():
        return Weighting("file", weights=read_weights(Path(text)), source=text)
    raise ValueError(
        f"{text} is not a weighting: uniform, snr, exp:-7, min-snr:5, learned:RUN or a CSV file of"
        " the columns level,weight"
    )


def read_weights(path: Path) -> dict[int, float]:
    """Read the weight of each level from a CSV file with the columns level,weight.

    Raises:
        UserError: the file is invalid, with the line.
    """
    weights: dict[int, float] = {}
    head, rows = read_csv_file(path)
    if set(head) != {"level", "weight"}:
        raise UserError(f"{path}:1: the first line must be level,weight.")
    for line, row in rows:
        level, where = row["level"], f"{path}:{line}"
        if not level.strip().isdecimal() or int(level) in weights:
            raise UserError(f"{where}: level {level!r} is not an index, or occurs twice.")
        weights[int(level)] = _weight(row["weight"], where)
    if not weights:
        raise UserError(f"--weighting: {path} holds no weights.")
    return weights


def _weight(text: str, where: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = float("nan")
    if not (isfinite(weight) and weight > 0):
        raise UserError(
            f"{where}: the weight must be a number above 0, got {text!r}. To leave out a level,"
            " use --levels."
        )
    return weight


def check_estimand(loss: str, space: str, weighting: Weighting) -> None:
    """Check that a named weighting can be used with this loss and space.

    Raises:
        ValueError: the loss is not `l2`, and the space is not `sample`.
    """
    if weighting.name in FORMULAS and loss != "l2" and space != "sample":
        raise ValueError(
            f"{weighting} weights the x_0 error, which has no equivalent in other spaces for --loss"
            f" {loss}: use --space sample, or --loss l2"
        )


def space_answer(levels: Levels, space: str) -> tuple[Column, Column]:
    """Return the pair (p, q) of the quantity that is compared, float64 [T] each."""
    if space == "prediction":
        return levels.p, levels.q
    if space == "v":
        return levels.velocity()
    return answer_of(space, levels.alpha, levels.sigma)


def space_factor(levels: Levels, space: str) -> Column:
    """Return the factor that converts a difference of predictions into `space`, float64 [T].

    With D = p·sigma − q·alpha of each quantity, d space = D_space / D_model · d model. For a model
    that predicts noise and the space `v`, it follows d eps = alpha d v.
    """
    if space == "prediction":
        return np.ones(len(levels))
    p, q = space_answer(levels, space)
    return (p * levels.sigma - q * levels.alpha) / levels.determinant


def draw_weights(
    weighting: Weighting, draws: Levels, space: str, levels: NDArray[np.int64], n_levels: int
) -> Column:
    """Return the weights of the draws, float64 [N], with mean 1.

    Args:
        weighting: the weighting; if it is learned, with its weights.
        draws: the rows of the level table that the draws are on.
        space: the space of the error.
        levels: indices of these rows in the model's table, int64 [N].
        n_levels: number of rows of the model's table.

    Raises:
        UserError: a level has no weight, or one that is not finite and above 0.
    """
    if weighting.name == "uniform":
        return np.ones(len(levels))
    if weighting.weights is not None:
        weights = _listed(weighting, n_levels, levels)
    else:
        p, q = space_answer(draws, space)
        share = p * draws.sigma - q * draws.alpha
        # w of the squared x_0 error, and d x_0 = sigma / D d space: w sigma² / D².
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = _times_variance(weighting, draws) / np.square(share)
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if wrong.size:
        raise UserError(
            f"--weighting {weighting}: the weight of level {levels[wrong[0]]} is"
            f" {weights[wrong[0]]:g}. Leave such levels out with --levels."
        )
    return np.asarray(weights / weights.mean())


def _times_variance(weighting: Weighting, levels: Levels) -> Column:
    """Return a named weight of the x_0 error times sigma², float64 [T]."""
    signal, noise = np.square(levels.alpha), np.square(levels.sigma)
    if weighting.name == "snr":
        return signal
    if weighting.name == "min-snr":
        return np.minimum(signal, weighting.number * noise)
    if levels.progress is None:
        raise UserError(
            f"--weighting {weighting}: the levels of this model have no time from 0 to 1; use snr,"
            " min-snr or a file."
        )
    return np.exp(weighting.number * levels.progress) * noise


def _listed(weighting: Weighting, n_levels: int, rows: NDArray[np.int64]) -> Column:
    weights = weighting.weights or {}
    if beyond := [level for level in weights if level >= n_levels]:
        raise UserError(
            f"--weighting {weighting}: level {beyond[0]} is beyond the model's levels,"
            f" 0 … {n_levels - 1}. The weights were made for another model."
        )
    missing = [int(level) for level in rows if int(level) not in weights]
    if missing:
        raise UserError(f"--weighting {weighting}: level {missing[0]} has no weight.")
    return np.array([weights[int(level)] for level in rows])


def cell_loss(difference: torch.Tensor, loss: Loss) -> torch.Tensor:
    """Return the error of each cell, float32 [B], given differences d, float32 [B, C, H, W].

    `l2` is the mean of d², `l1` of |d| and `huber` of Huber's loss with delta 1; `norm` is the
    square root of the *sum* of d².
    """
    match loss:
        case "l2":
            return difference.square().flatten(1).mean(dim=1)
        case "l1":
            return difference.abs().flatten(1).mean(dim=1)
        case "huber":  # d² / 2 up to 1, |d| − 1/2 beyond
            size = difference.abs()
            within = size.clamp(max=1.0)
            return (within * (size - within / 2)).flatten(1).mean(dim=1)
        case "norm":
            return difference.square().flatten(1).sum(dim=1).sqrt()
        case _:
            assert_never(loss)
