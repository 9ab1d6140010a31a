"""The estimand: which error is averaged, in which space, and with which weights of the levels.

    --loss       reduction of the difference between prediction and target: l2, l1, huber or norm
    --space      what is compared: `prediction` (the model's own output), `epsilon` (the noise eps),
                 `sample` (the clean latent x_0) or `v` (the velocity)
    --weighting  weight of each noise level

At a fixed x_t, differences of these four quantities are multiples of each other, so changing the
space multiplies a difference by one factor per level. The formulas `snr`, `exp` and `min-snr`
weight the squared x_0 error, as in papers. With `l2` they are converted to the space in use: a
weight w of the x_0 error is a weight w / SNR of the eps error. Other losses have no such
conversion, so with them a formula needs `--space sample`. Weights that are listed in a file or
learned apply to the error in the space in use, and `uniform` to any error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Literal, assert_never

import numpy as np
from typing_extensions import override

from bench.contracts.levels import Column, Levels, answer_of
from bench.contracts.strategy import Ints
from bench.errors import UserError
from bench.inputs.parsing import read_csv_file
from bench.machine.libraries import Tensor

Space = Literal["prediction", "epsilon", "sample", "v"]
FORMULAS = ("snr", "exp", "min-snr")  # weightings that are functions of the level
Loss = Literal["l2", "l1", "huber", "norm"]


@dataclass(frozen=True)
class Weighting:
    """Weights of the noise levels, before the table of a model is known."""

    name: str = "uniform"
    """Name of the weighting.

    `uniform`; the formulas `snr` (uniform in eps), `exp` (e^(number · t), with the model's time t
    from 0 to 1) and `min-snr` (the SNR, at most `number`); `learned` from a run; `file`."""
    number: float = 0.0  # the number in `exp:…` and `min-snr:…`
    weights: Mapping[int, float] | None = None
    """Level index → weight, from a file or learned; None for a formula, or until it is learned."""
    source: str = ""  # the file, or the run

    @override
    def __str__(self) -> str:
        if self.name in ("exp", "min-snr"):
            return f"{self.name}:{self.number:g}"
        if self.name == "learned":
            return f"learned:{self.source}"
        return self.source or self.name


def parse_weighting(text: str) -> Weighting:
    """Parse `uniform`, `snr`, `exp:-7`, `min-snr:5`, `learned:RUN` or the name of a CSV file.

    The result for `learned:RUN` has no weights yet. Raises ValueError if the text is none of these
    or its number is out of range, and UserError if the file is invalid.
    """
    name, colon, rest = text.partition(":")
    if text in ("uniform", "snr"):
        return Weighting(text)
    if name in ("exp", "min-snr") and colon:
        number = _parse_number(rest)
        if not isfinite(number) or (name == "min-snr" and number <= 0):
            wanted = " above 0, as in min-snr:5" if name == "min-snr" else ", as in exp:-7"
            raise ValueError(f"{text}: expected a finite number{wanted}")
        return Weighting(name, number)
    if name == "learned" and rest:
        return Weighting(name, source=rest)
    if Path(text).is_file():
        return Weighting("file", weights=read_weights(Path(text)), source=text)
    raise ValueError(
        f"{text} is not a weighting; expected uniform, snr, exp:-7, min-snr:5, learned:RUN or a CSV"
        " file with the columns level and weight"
    )


def read_weights(path: Path) -> dict[int, float]:
    """Read level index → weight from a CSV file with the columns level and weight, in any order.

    Raises UserError if a level is not a row index or occurs twice, a weight is not finite and above
    0, or there are no rows.
    """
    weights: dict[int, float] = {}
    _, rows = read_csv_file(path, ("level", "weight"), others=())
    for line, row in rows:
        level, where = row["level"], f"{path}:{line}"
        if not level.strip().isdecimal():
            raise UserError(f"{where}: the level must be an index from 0, got {level!r}.")
        if int(level) in weights:
            raise UserError(f"{where}: the level {int(level)} occurs twice.")
        weight = _parse_number(row["weight"])
        if not (isfinite(weight) and weight > 0):
            raise UserError(
                f"{where}: the weight must be a finite number above 0, got {row['weight']!r}. To"
                " leave out a level, use --levels."
            )
        weights[int(level)] = weight
    if not weights:
        raise UserError(f"--weighting: {path} holds no weights.")
    return weights


def _parse_number(text: str) -> float:
    """Return the number that a text is, NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return nan


def check_estimand(loss: str, space: str, weighting: Weighting) -> None:
    """Raise ValueError if a formula is used without the loss `l2` or the space `sample`."""
    if weighting.name in FORMULAS and loss != "l2" and space != "sample":
        raise ValueError(
            f"{weighting} weights the x_0 error, which has no equivalent in other spaces for --loss"
            f" {loss}: use --space sample, or --loss l2"
        )


def _compute_determinant(levels: Levels, space: str) -> Column:
    """Return p·sigma − q·alpha of the quantity p·x_0 + q·eps that `space` names, one per level."""
    if space == "prediction":
        return levels.determinant
    if space == "v":
        p, q = levels.velocity()
    else:
        p, q = answer_of(space, levels.alpha, levels.sigma)
    return p * levels.sigma - q * levels.alpha


def space_factor(levels: Levels, space: str) -> Column:
    """Return the factor that converts a difference of predictions into `space`, float64 [T].

    It is the ratio of determinants, D_space / D_prediction. With a model that predicts noise and
    alpha² + sigma² = 1, a difference in `v` is 1 / alpha times that of the predictions.
    """
    return _compute_determinant(levels, space) / levels.determinant


def draw_weights(
    weighting: Weighting, draw_levels: Levels, space: str, level_indices: Ints, n_levels: int
) -> Column:
    """Return the weights of the N draws, float64 [N], with mean 1.

    `draw_levels` are the levels of the draws, and `level_indices` their rows in the model's table
    of `n_levels`. A learned weighting must have its weights. Raises UserError if a level has no
    weight or one that is not finite and above 0, if a file weights a level that the model lacks, or
    if `exp` is used and the levels have no `progress`.
    """
    if weighting.name == "uniform":
        return np.ones(len(level_indices))
    if (weight_of := weighting.weights) is not None:
        if beyond := [level for level in weight_of if level >= n_levels]:
            raise UserError(
                f"--weighting {weighting}: level {beyond[0]} is beyond the model's levels,"
                f" 0 … {n_levels - 1}. The weights were made for another model."
            )
        weights = np.array([weight_of.get(int(level), nan) for level in level_indices])
    else:
        # d x_0 = sigma / D · d space, so w · (d x_0)² = w · sigma² / D² · (d space)².
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = _evaluate_formula(weighting, draw_levels) / np.square(
                _compute_determinant(draw_levels, space)
            )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))
    if wrong.size:
        raise UserError(
            f"--weighting {weighting}: level {level_indices[wrong[0]]} has no weight above 0, but"
            f" {weights[wrong[0]]:g}. Leave such levels out with --levels."
        )
    return np.asarray(weights / weights.mean())


def _evaluate_formula(weighting: Weighting, levels: Levels) -> Column:
    """Return w · sigma² of each level, where w is the formula's weight of the squared x_0 error."""
    signal, noise = np.square(levels.alpha), np.square(levels.sigma)
    if weighting.name == "snr":
        return signal
    if weighting.name == "min-snr":
        return np.minimum(signal, weighting.number * noise)
    if weighting.name != "exp":
        raise ValueError(f"weighting {weighting} has no weights")
    if levels.progress is None:
        raise UserError(
            f"--weighting {weighting}: the levels of this model have no time from 0 to 1; use snr,"
            " min-snr or a file."
        )
    return np.exp(weighting.number * levels.progress) * noise


def cell_loss(difference: Tensor, loss: Loss) -> Tensor:
    """Return the error of each of B cells, float32 [B], given differences d, float32 [B, C, H, W].

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
