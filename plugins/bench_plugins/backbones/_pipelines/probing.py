"""Find out how to call a pipeline class without declared facts, and check what is assumed of it.

The checks detect a wrong shift of the noise levels, a wrong time scaling or sign, and a wrong
normalisation of latents. A `PipelineDenoiser` calls these functions when it is created, and passes
itself as `denoiser`.
"""

import inspect
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from bench.contracts.backbone import Denoiser
from bench.contracts.levels import Levels
from bench.engine.images import preprocess
from bench.engine.scoring import times as times_of
from bench_plugins.backbones._pipelines.gate import unusable
from bench_plugins.backbones._pipelines.runner import Runner

PROBED_STEPS = 10  # length of the pipeline's schedule that is checked
LEVEL_TOLERANCE = 0.01  # of alpha, sigma and shifts, because solvers round times to integers
MAX_LOST_VARIANCE = 0.5  # fraction of an image's variance that encoding and decoding may lose
MAX_BATCH_ERROR = (0.05, 0.005)  # relative to the prediction, in half precision and in float32
PROBED_POSITIONS = (0.05, 0.3, 0.6, 0.9)  # positions in the level table, from little to much noise


def is_batchable(denoiser: Denoiser, prompts: Mapping[str, Tensor], times: str) -> bool:
    """Return whether two samples are predicted together as they are alone.

    They have the two `prompts` and, with the times `each`, different noise levels.
    """
    levels = denoiser.levels
    rows = np.array([1, 3 if times == "each" else 1]) * len(levels) // 4
    x_t = torch.randn(2, *denoiser.latent_shape, generator=torch.Generator().manual_seed(0))
    x_t, time = x_t.to(denoiser.device), times_of(levels, rows).to(denoiser.device)

    def predict(samples: slice) -> Tensor:
        tree = {name: leaf[samples] for name, leaf in prompts.items()}
        return denoiser.denoise(x_t[samples], time[samples], tree)

    alone = torch.cat([predict(slice(0, 1)), predict(slice(1, 2))])
    try:
        together = predict(slice(0, 2))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever the pipeline raises for a vector of times
        return False
    tolerance = MAX_BATCH_ERROR[alone.dtype == torch.float32]
    return bool((together - alone).float().norm() <= tolerance * alone.float().norm())


def check_assumptions(denoiser: Denoiser, runner: Runner, normalize: str) -> None:
    """Raise UserError if a pipeline's steps, levels or autoencoder contradict what is assumed."""
    scheduler, levels = runner.pipe.scheduler, denoiser.levels
    schedule = runner.first_latents(PROBED_STEPS).schedule or {}
    check_steps(scheduler, levels, schedule, runner.who)
    check_shift(scheduler, levels, schedule, runner.who)
    with torch.inference_mode():
        check_image(denoiser, runner, normalize)


def check_steps(scheduler: Any, levels: Levels, schedule: Mapping[str, Any], who: str) -> None:
    """Raise UserError if the scheduler's own steps do not agree with the noise levels.

    A copy of the scheduler steps with the outputs of a perfect model for (x_0, eps) = (1, 0) and
    (0, 1). They are p · x_0 + q · eps, with the columns p and q of the level table. If a step
    returns the clean sample, it must be x_0. Otherwise the next sample must be
    alpha · x_0 + sigma · eps at the next level. `schedule` has the keywords that the pipeline
    passes to `set_timesteps` for `PROBED_STEPS` steps.
    """
    probe = type(scheduler).from_config(scheduler.config)
    probe.set_timesteps(**schedule)
    parameters = inspect.signature(probe.step).parameters
    more = {"generator": torch.Generator().manual_seed(0)} if "generator" in parameters else {}
    for time, after in zip(probe.timesteps[:-1], probe.timesteps[1:], strict=True):
        ones = torch.ones(2, 1, 1, 1)
        scale = probe.scale_model_input(ones, time) if hasattr(probe, "scale_model_input") else ones
        sample = _pair(levels, time, "alpha", "sigma") / scale
        output = probe.step(_pair(levels, time, "p", "q"), time, sample, **more)
        result = getattr(output, "pred_original_sample", None)
        if result is not None:
            expected, what = torch.tensor([1.0, 0.0]), f"the clean sample at time {float(time):.4g}"
        else:
            result = output.prev_sample
            expected = _pair(levels, after, "alpha", "sigma").flatten()
            what = f"alpha and sigma at time {float(after):.4g}"
        result = result.flatten().float()
        if float((result - expected).abs().max()) > LEVEL_TOLERANCE:
            raise unusable(
                who,
                f"its scheduler's own step contradicts the assumed noise levels. For {what},"
                f" expected {expected.tolist()}, got {result.tolist()}",
            )


def is_flow(scheduler: Any) -> bool:
    """Return whether the noise levels of a scheduler are those of a flow."""
    return bool(scheduler.config.get("use_flow_sigmas")) or "FlowMatch" in type(scheduler).__name__


def usual_sampler(scheduler: Any) -> Any:
    """Return the sampler that neither draws noise nor mixes steps, for a scheduler's levels."""
    config: Any = scheduler.config
    kind: Any = FlowMatchEulerDiscreteScheduler if is_flow(scheduler) else DDIMScheduler
    settings: Any = {**config, "use_dynamic_shifting": False, "stochastic_sampling": False}
    names = inspect.signature(kind.__init__).parameters.keys() - {"shift_terminal", "self"}
    return kind(**{name: settings[name] for name in names & settings.keys()})


def _pair(levels: Levels, time: Tensor, first: str, second: str) -> Tensor:
    """Return two columns of the level table, interpolated at a time, float32 [2, 1, 1, 1]."""
    order = np.argsort(levels.time)
    columns = (getattr(levels, name)[order] for name in (first, second))
    values = [np.interp(float(time), levels.time[order], column) for column in columns]
    return torch.tensor(values, dtype=torch.float32).view(2, 1, 1, 1)


def check_shift(scheduler: Any, levels: Levels, schedule: Mapping[str, Any], who: str) -> None:
    """Raise UserError if the noise levels of a flow do not have the pipeline's own shift.

    A shift s maps an unshifted level u to s u / (1 + (s − 1) u). The unshifted levels are evenly
    spaced. The pipeline sets them, or its scheduler, which may end at its lowest level. Levels that
    are not those of a flow are not checked.
    """
    if np.abs(levels.alpha + levels.sigma - 1).max() > 1e-6:  # not a flow
        return
    probe = type(scheduler).from_config(scheduler.config, shift_terminal=None)
    probe.set_timesteps(**schedule)
    sigma = probe.sigmas[1 : PROBED_STEPS - 1].double().numpy()
    step = np.arange(1, PROBED_STEPS - 1)
    even = 1 - step / PROBED_STEPS
    if (sigmas := schedule.get("sigmas")) is not None:
        even = np.asarray(sigmas, np.float64)[1 : PROBED_STEPS - 1]
    elif least := vars(probe).get("sigma_min"):
        even = 1 - step / (PROBED_STEPS - 1) * (1 - float(least))
    if np.ptp(np.diff(even)) > LEVEL_TOLERANCE:
        raise unusable(
            who,
            "it spaces its noise levels unevenly, which its scheduler's config does not describe",
        )
    shift = float(np.median(_shift(sigma, even)))
    middle = len(levels) // 2 - 1
    assumed = float(_shift(levels.sigma[middle], (middle + 1) / len(levels)))
    if abs(shift / assumed - 1) > 5 * LEVEL_TOLERANCE:
        raise unusable(
            who,
            f"its noise levels have the shift {shift:.3g}, but its scheduler's config describes"
            f" {assumed:.3g}",
        )


def _shift(sigma: Any, even: Any) -> Any:
    """Return the shift that maps the level `even` to `sigma`."""
    return sigma * (1 - even) / ((1 - sigma) * even)


def check_image(denoiser: Denoiser, runner: Runner, normalize: str) -> None:
    """Encode, decode and denoise a test image.

    Raises UserError if decoding does not restore the encoded image, or the error of the denoised
    latent does not decrease with the noise level.
    """
    image, levels = _test_image(denoiser.resolution), denoiser.levels
    latent = denoiser.encode_images([image])
    pixels = preprocess([image], denoiser.resolution, normalize).to(denoiser.device)
    lost = float((_decoded(runner, latent, levels) - pixels).square().mean() / pixels.var())
    if not lost < MAX_LOST_VARIANCE:
        raise unusable(
            runner.who,
            f"its autoencoder loses {lost:.0%} of a test image's variance; expected less than"
            f" {MAX_LOST_VARIANCE:.0%}",
        )
    errors = []
    eps = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)).to(latent.device)
    for row in (int(position * len(levels)) for position in PROBED_POSITIONS):
        alpha, sigma, p, q = (
            float(getattr(levels, name)[row]) for name in ("alpha", "sigma", "p", "q")
        )
        x_t = alpha * latent + sigma * eps
        time = times_of(levels, np.array([row])).to(latent.device)
        output = denoiser.denoise(x_t, time, runner.shortest).float()
        clean = (sigma * output - q * x_t) / (p * sigma - q * alpha)
        errors.append(float((clean - latent).square().mean()))
    if not all(less < more for less, more in pairwise(errors)):
        raise unusable(
            runner.who,
            "the error of the denoised latent does not decrease with the noise level. It is"
            f" {', '.join(f'{error:.3g}' for error in errors)} at"
            f" {', '.join(f'{p:.0%}' for p in PROBED_POSITIONS)} of the level table",
        )


def _decoded(runner: Runner, latents: Tensor, levels: Levels) -> Tensor:
    """Return the image of one latent, [1, C, H, W], float32 [1, 3, H, W]."""
    vae = runner.pipe.vae
    normalised = runner.decoder_input(latents.double(), torch.as_tensor(levels.time[-1:]))
    image: Tensor = vae.decode(normalised.to(vae.dtype), return_dict=False)[0]
    return image.reshape(1, 3, *image.shape[-2:]).float()


def _test_image(side: int) -> Image.Image:
    """Return an image of a bright disc on a gradient."""
    row, column = np.mgrid[0:side, 0:side] / side
    disc = np.hypot(row - 0.5, column - 0.5) < 0.3
    grey = np.where(disc, 220, 60 * row).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey, grey], axis=-1))
