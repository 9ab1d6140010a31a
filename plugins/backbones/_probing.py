"""Trials of a pipeline without declared facts, and checks of what is assumed of it.

The checks find a wrong shift, scale of the time, sign, or mean of the autoencoder. `denoiser` is a
`PipelineDenoiser`, which calls these functions when it is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.contracts.levels import Levels
from bench.engine.images import preprocess
from bench.errors import UserError
from bench_plugins.backbones._driving import network_name
from bench_plugins.backbones._seam import CountedNetwork

PROBED_STEPS = 10  # of the pipeline's own schedule
ROUNDING = 0.01  # tolerance of alpha, sigma and shifts: solvers round times to whole numbers
WORST_PICTURE = 0.5  # largest share of an image's variance that encoding and decoding may lose
SHARES = (0.05, 0.3, 0.6, 0.9)  # of the level table, from little to much noise


def probe_call(denoiser: Any) -> str:
    """Switch guidance off, and return whether a call takes a time for `each` sample, or `one`.

    Raises:
        UserError: guidance cannot be switched off, or the network cannot be called.
    """
    name = network_name(denoiser.pipe)
    for keywords in ({}, {"guidance_scale": 0.0}):
        counted = CountedNetwork(denoiser.network)
        denoiser.call.update(keywords)
        denoiser.try_step(1, {name: counted})
        if counted.samples == [1]:
            break
    else:
        raise UserError(
            f"{denoiser.who} cannot be used: its network is called for {counted.samples} samples"
            " where there is one, so guidance is not left out."
        )
    levels = denoiser.levels
    rows = np.array([len(levels) // 4, 3 * len(levels) // 4])
    time = torch.from_numpy(levels.time[rows])
    x_t = torch.randn(2, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    x_t, time = x_t.to(denoiser.device), time.to(denoiser.device)
    prompts = {n: leaf.expand(2, *leaf.shape[1:]) for n, leaf in denoiser.shortest.items()}
    first = {n: leaf[:1] for n, leaf in prompts.items()}
    alone = [denoiser.denoise(x_t[n : n + 1], time[n : n + 1], first) for n in (0, 1)]
    try:
        together = denoiser.denoise(x_t, time, prompts)
    except Exception:  # whatever the pipeline raises for a vector of times
        return "one"
    wanted = torch.cat(alone).float()
    close = float((together.float() - wanted).abs().max()) < 0.02 * float(wanted.abs().max())
    return "each" if close else "one"


def check_assumptions(denoiser: Any) -> None:
    """Refuse a pipeline whose own steps, levels or autoencoder contradict the assumptions."""
    schedule = denoiser.first_latents(PROBED_STEPS).schedule or {}
    check_steps(denoiser.pipe.scheduler, denoiser.levels, schedule, denoiser.who)
    check_shift(denoiser.pipe.scheduler, denoiser.levels, schedule, denoiser.who)
    with torch.inference_mode():
        check_image(denoiser)


def check_steps(scheduler: Any, levels: Levels, schedule: Mapping[str, Any], who: str) -> None:
    """Refuse levels that the pipeline's own steps contradict.

    The scheduler steps with the answers of a perfect model, p · x_0 + q · eps, for (x_0, eps) of
    (1, 0) and (0, 1). If it returns the clean sample of a step, that must be x_0; else the next
    sample must be alpha · x_0 + sigma · eps of the next level.

    Args:
        scheduler: the pipeline's.
        levels: the assumed ones.
        schedule: the pipeline's keywords of `set_timesteps`, for `PROBED_STEPS` steps.
        who: the name of the pipeline in messages.

    Raises:
        UserError: a step has another result.
    """
    own = type(scheduler).from_config(scheduler.config)
    own.set_timesteps(**schedule)
    takes = inspect.signature(own.step).parameters
    more = {"generator": torch.Generator().manual_seed(0)} if "generator" in takes else {}
    for time, after in zip(own.timesteps[:-1], own.timesteps[1:], strict=True):
        ones = torch.ones(2, 1, 1, 1)
        scale = own.scale_model_input(ones, time) if hasattr(own, "scale_model_input") else ones
        sample = _pair(levels, time, "alpha", "sigma") / scale
        made = own.step(_pair(levels, time, "p", "q"), time, sample, **more)
        clean = getattr(made, "pred_original_sample", None)
        if clean is not None:
            wanted, what = torch.tensor([1.0, 0.0]), f"the clean sample at time {float(time):.4g}"
        else:
            clean = made.prev_sample
            wanted = _pair(levels, after, "alpha", "sigma").flatten()
            what = f"alpha and sigma at time {float(after):.4g}"
        solved = clean.flatten().float()
        if float((solved - wanted).abs().max()) > ROUNDING:
            raise UserError(
                f"{who} cannot be used: by its scheduler's own step, {what} are"
                f" {solved.tolist()}, and {wanted.tolist()} were assumed."
            )


def _pair(levels: Levels, time: Tensor, first: str, second: str) -> Tensor:
    """Return two columns of the table at a time, float32 [2, 1, 1, 1]."""
    order = np.argsort(levels.time)
    columns = (getattr(levels, name)[order] for name in (first, second))
    values = [np.interp(float(time), levels.time[order], column) for column in columns]
    return torch.tensor(values, dtype=torch.float32).view(2, 1, 1, 1)


def check_shift(scheduler: Any, levels: Levels, schedule: Mapping[str, Any], who: str) -> None:
    """Refuse a flow's levels if the pipeline's own have another shift.

    A shift s takes the even share u of the levels to s u / (1 + (s − 1) u). The even shares are
    those that the pipeline sets, or the scheduler's, which may end at its lowest level.

    Raises:
        UserError: the shifts differ.
    """
    if np.abs(levels.alpha + levels.sigma - 1).max() > 1e-6:
        return
    own = type(scheduler).from_config(scheduler.config, shift_terminal=None)
    own.set_timesteps(**schedule)
    sigma, place = own.sigmas[1 : PROBED_STEPS - 1].double().numpy(), np.arange(1, PROBED_STEPS - 1)
    even = 1 - place / PROBED_STEPS
    if (sigmas := schedule.get("sigmas")) is not None:
        even = np.asarray(sigmas, np.float64)[1 : PROBED_STEPS - 1]
    elif least := vars(own).get("sigma_min"):
        even = 1 - place / (PROBED_STEPS - 1) * (1 - float(least))
    shift = float(np.median(_shift(sigma, even)))
    middle = len(levels) // 2 - 1
    assumed = float(_shift(levels.sigma[middle], (middle + 1) / len(levels)))
    if abs(shift / assumed - 1) > 5 * ROUNDING or np.ptp(np.diff(even)) > ROUNDING:
        raise UserError(
            f"{who} cannot be used: its own levels have the shift {shift:.3g}, and its"
            f" scheduler's config describes {assumed:.3g}."
        )


def _shift(sigma: Any, even: Any) -> Any:
    return sigma * (1 - even) / ((1 - sigma) * even)


def check_image(denoiser: Any) -> None:
    """Refuse an autoencoder that does not restore an image, and levels that do not denoise it.

    Raises:
        UserError: decoding does not restore an encoded image, or the error of x_0 does not fall
            with the noise.
    """
    image = _picture(denoiser.resolution)
    latent = denoiser.encode_images([image])
    pixels = preprocess([image], denoiser.resolution, denoiser.normalize).to(denoiser.device)
    lost = float((denoiser.decode(latent) - pixels).square().mean() / pixels.var())
    if not lost < WORST_PICTURE:
        raise UserError(
            f"{denoiser.who} cannot be used: an image that is encoded and decoded loses"
            f" {lost:.0%} of its variance."
        )
    levels, errors = denoiser.levels, []
    eps = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)).to(latent.device)
    for row in (int(share * len(levels)) for share in SHARES):
        alpha, sigma, p, q = (
            float(getattr(levels, name)[row]) for name in ("alpha", "sigma", "p", "q")
        )
        x_t = alpha * latent + sigma * eps
        time = torch.as_tensor(levels.time[row : row + 1]).to(latent.device)
        time = time.float() if time.is_floating_point() else time
        answer = denoiser.denoise(x_t, time, denoiser.shortest).float()
        clean = (sigma * answer - q * x_t) / (p * sigma - q * alpha)
        errors.append(float((clean - latent).square().mean()))
    if not all(less < more for less, more in pairwise(errors)):
        raise UserError(
            f"{denoiser.who} cannot be used: the error of the clean latent does not fall with the"
            f" noise; at {', '.join(f'{share:.0%}' for share in SHARES)} of the levels it is"
            f" {', '.join(f'{error:.3g}' for error in errors)}."
        )


def _picture(side: int) -> Image.Image:
    """Return a picture of a bright disc on a gradient."""
    row, column = np.mgrid[0:side, 0:side] / side
    disc = np.hypot(row - 0.5, column - 0.5) < 0.3
    grey = np.where(disc, 220, 60 * row).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey, grey], axis=-1))
