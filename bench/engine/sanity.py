"""A check without labels of whether a denoiser, its noise levels and a run's images fit together.

The denoiser predicts one noise for each of a few images at five noise levels, at the declared times
and at scaled ones, and for one image under several prompts. Three figures are compared with what
any denoiser that fits would reach:

* W: the squared error over that of the best affine guess of the target from x_t, for latents of
  which only mean and variance are known. A denoiser that fits knows more than these.
* S: the error at a scaled time over the error at the declared one. A denoiser is best at the time
  for which it was trained.
* D: the mean squared difference of the predictions under two prompts over that of one prompt at two
  places of a batch. A prompt that reaches the network changes more than rounding does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from typing_extensions import override

from bench.contracts.levels import Levels
from bench.contracts.strategy import Floats, Ints
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.scoring import coefficients, mixed, times
from bench.engine.transfer import inferring
from bench.engine.trees import Tree, rows
from bench.engine.trees import count as n_rows
from bench.inputs.estimand import cell_loss
from bench.machine.libraries import Tensor, torch

MAX_IMAGES, MIN_SCALED = 8, 4  # S of fewer images is too noisy
SNR = (8.0, 3.0, 1.0, 0.4, 0.1)  # signal-to-noise ratios alpha² / sigma² of the levels
MIN_SIGNAL = 0.01  # smallest alpha²; below, the target hardly depends on the image
SLOWER, FASTER = (0.5, 0.7, 0.85), (1.2, 1.4, 1.8)  # factors of the time
WORST_GUESS = 1.0  # median W from which on the denoiser does not fit
BEST_ELSEWHERE = 0.9  # S below which another time is clearly better than the declared one
COMPARED_PROMPTS = 5  # for D
LEAST_EFFECT = 10.0  # D below which, at all levels, the prompt changes nothing
# D divides by a squared difference, which counts as at least this relative rounding of values.
UNIT_ROUNDING = 8 * float(np.finfo(np.float32).eps)


def affordable(evaluations: float, prompts: int) -> tuple[int, bool, int]:
    """Return the number of images, whether S is computed, and the prompts for D, for `evaluations`.

    `prompts` is the number of prompts of the run. D has none if it would need more evaluations.
    """
    w, both = len(SNR), len(SNR) * (1 + len(SLOWER) + len(FASTER))  # per image: W, and W and S
    images = int(evaluations // both)
    scaled = images >= MIN_SCALED
    images = min(images if scaled else int(evaluations // w), MAX_IMAGES)
    left = evaluations - images * (both if scaled else w)
    compared = min(prompts, COMPARED_PROMPTS, int(left // w) - 1)
    return images, scaled, compared if compared > 1 else 0


@dataclass(frozen=True)
class ModelFit:
    """How well a denoiser fits its noise levels and images."""

    guess: float  # median of W over images and levels
    elsewhere: tuple[float, ...]  # S per level: the lowest of the worse side; empty: unknown
    effect: tuple[float, ...] = ()  # D per level: the largest of two prompts; empty: unknown
    change: float = 0.0  # largest change of a prediction by a prompt, relative, root mean square
    ignores_time: bool = False  # whether the errors at all scaled times are exactly equal

    @property
    def problem(self) -> str | None:
        """What does not fit, or deserves a note, as a sentence; None if nothing was found."""
        if self.effect and max(self.effect) < LEAST_EFFECT:
            return (
                "The prompt changes nothing: at every noise level, predictions under different"
                f" prompts differ by {self.change:.1g} of their size, as those of one prompt do at"
                " two places of a batch. The text encoder's output does not reach the network, or"
                " is the same for all prompts."
            )
        if self.guess >= WORST_GUESS:
            return (
                "The model predicts these images no better than a linear guess (with"
                f" {self.guess:.2g} times its squared error): its prediction type, scaling factor,"
                " weights or the images do not fit."
            )
        below = np.asarray(self.elsewhere) < BEST_ELSEWHERE
        if (below[:-1] & below[1:]).any():  # of two neighbouring levels
            return (
                "The noise schedule does not look like the one that the network was trained with:"
                f" told of another noise level, it errs {min(self.elsewhere):.2g} times as much."
            )
        if self.ignores_time:
            return "Note: the network ignores the time: its errors at all scaled times are equal."
        return None

    @override
    def __str__(self) -> str:
        figures = [f"W {self.guess:.2g}"]
        if self.elsewhere:
            figures.append(f"S {' '.join(f'{ratio:.2f}' for ratio in self.elsewhere)}")
        if self.effect:
            ratios = " ".join(f"{ratio:.2g}" for ratio in self.effect)
            figures.append(f"D {ratios} (prompts change predictions by up to {self.change:.1%})")
        return "The model's fit: " + ", ".join(figures)


@inferring
def check_fit(
    denoiser: CheckedDenoiser, latents: Tensor, prompts: Tree, batch_size: int, scaled: bool
) -> ModelFit | None:
    """Return how well a denoiser fits its levels and `latents`, float32 [n, C, H, W] on its device.

    `prompts` is the conditioning of P prompts; W and S use the first. `scaled` asks for S. W costs
    5 n evaluations, W and S seven times as many, and D 5 (P + 1), if there are several prompts.
    Returns None if no noise level can be used, or all latents are the same number.
    """
    chosen = _chosen_levels(denoiser.levels)
    if not len(chosen) or len(denoiser.levels) < 2 or not latents.var() > 0:
        return None
    levels = denoiser.levels.rows(chosen)
    errors_at = _errors_at(denoiser, latents, levels, prompts, batch_size)
    errors = errors_at(1.0)
    fit = ModelFit(float(np.median(errors / _affine_errors(levels, latents))), ())
    if (count := n_rows(prompts)) > 1:
        effect, change = _effects(
            denoiser, latents[:1], levels, prompts, min(batch_size, count + 1)
        )
        fit = replace(fit, effect=tuple(effect.tolist()), change=change)
    if not scaled:
        return fit
    others = {factor: errors_at(factor) for factor in (*SLOWER, *FASTER)}
    sides = [
        np.min([others[factor].mean(axis=0) / errors.mean(axis=0) for factor in side], axis=0)
        for side in (SLOWER, FASTER)
    ]
    worst = min(sides, key=lambda side: np.min(np.maximum(side[:-1], side[1:]), initial=np.inf))
    equal = all(np.array_equal(errors, other) for other in others.values())
    return replace(fit, elsewhere=tuple(worst.tolist()), ignores_time=equal)


def _effects(
    denoiser: CheckedDenoiser, latents: Tensor, levels: Levels, prompts: Tree, batch_size: int
) -> tuple[Floats, float]:
    """Return D, float64 [L], the largest over pairs of the P prompts, and the largest change.

    The cells of a level are those of the prompts, and the first one again at the end. If the batch
    size divides P, both would have the same place in a batch, so batches are one cell smaller.
    """
    device, count = latents.device, n_rows(prompts)
    size = batch_size - 1 if batch_size > 1 and count % batch_size == 0 else batch_size
    noise = np.random.default_rng(0).standard_normal(latents.shape, dtype=np.float32)
    draws = coefficients(levels, np.arange(len(levels)), "prediction", device)
    eps, time = torch.from_numpy(noise).to(device), times(levels, np.arange(len(levels)))
    row = torch.arange(count + 1, device=device) % count
    effects, changes = [], []
    for level in range(len(levels)):
        x_t = mixed(latents, eps, draws.alpha[[level]], draws.sigma[[level]])
        answers = []
        for start in range(0, count + 1, size):
            chosen = row[start : start + size]
            t = time[[level]].to(device).expand(len(chosen))
            cells = x_t.expand(len(chosen), *x_t.shape[1:])
            answers.append(denoiser.denoise(cells, t, rows(prompts, chosen)).float())
        values = torch.cat(answers).flatten(1).cpu().double()
        square = float((values**2).mean())
        apart = torch.cdist(values[:-1], values[:-1]).square().max() / values.shape[1]
        place = float(((values[0] - values[-1]) ** 2).mean())
        effects.append(float(apart) / max(place, UNIT_ROUNDING**2 * square, np.finfo(float).tiny))
        changes.append(np.sqrt(float(apart) / square) if square else 0.0)
    return np.array(effects), float(max(changes))


def _chosen_levels(levels: Levels) -> Ints:
    """Return the level nearest to each of the signal-to-noise ratios, without repetitions."""
    with np.errstate(divide="ignore"):
        distance = np.abs(np.log(levels.snr)[:, None] - np.log(SNR))
    usable = np.isfinite(levels.snr) & (levels.alpha**2 >= MIN_SIGNAL)
    distance[~usable] = np.inf
    nearest = np.unique(distance.argmin(axis=0))
    return np.asarray(nearest[usable[nearest]], np.int64)


def _affine_errors(levels: Levels, latents: Tensor) -> Floats:
    """Return the mean squared error, float64 [L], of the best affine guess of the target from x_t.

    With x_t = α·x_0 + σ·ε, the target a·ε + b·x_0 and a variance s² of x_0 it is
    (a − b·σ/α)² · α²s² / (α²s² + σ²) per channel: a·ε + b·x_0 = a·x_t/σ + (b − a·α/σ)·x_0, and x_0
    given x_t has the variance s²σ² / (α²s² + σ²).
    """
    variance = latents.double().var(dim=(0, 2, 3), unbiased=False).cpu().numpy()
    alpha, sigma, a, b = (c[:, None] for c in (levels.alpha, levels.sigma, levels.q, levels.p))
    signal = alpha**2 * variance
    error = (a - b * sigma / alpha) ** 2 * signal / (signal + sigma**2)
    return np.asarray(error.mean(axis=1))


def _errors_at(
    denoiser: CheckedDenoiser, latents: Tensor, levels: Levels, prompt: Tree, batch_size: int
) -> Callable[[float], Floats]:
    """Return a function that takes a factor of the declared times to mean squared errors.

    The errors, float64 [n, L], are those of n images at L levels, with the same noise for every
    factor. Scaled times are clipped to the times of the model's table.
    """
    device, table = latents.device, denoiser.levels.time
    noise = np.random.default_rng(0).standard_normal(latents.shape, dtype=np.float32)
    draws = coefficients(levels, np.arange(len(levels)), "prediction", device)
    draw = torch.arange(len(levels), device=device).repeat(len(latents))
    x_0, eps = (
        tensor.repeat_interleave(len(levels), dim=0)
        for tensor in (latents, torch.from_numpy(noise).to(device))
    )
    x_t = mixed(x_0, eps, draws.alpha[draw], draws.sigma[draw])
    wanted = mixed(x_0, eps, draws.p[draw], draws.q[draw])

    def errors_at(factor: float) -> Floats:
        scaled = np.clip(levels.time * factor, table.min(), table.max())
        scaled = np.rint(scaled) if np.issubdtype(table.dtype, np.integer) else scaled
        at_times = replace(levels, time=scaled.astype(table.dtype))
        time = times(at_times, np.arange(len(at_times))).to(device)[draw]
        errors = []
        for start in range(0, len(draw), batch_size):
            cells = slice(start, start + batch_size)
            t = time[cells]
            here = torch.zeros(len(t), dtype=torch.int64)
            answer = denoiser.denoise(x_t[cells], t, rows(prompt, here.to(device), here))
            errors.append(cell_loss(answer.float() - wanted[cells], "l2"))
        return torch.cat(errors).double().cpu().numpy().reshape(-1, len(levels))

    return errors_at
