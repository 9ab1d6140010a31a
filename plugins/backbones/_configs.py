"""Checks of a pipeline's configs, before a tensor is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
from diffusers import DDPMScheduler
from numpy.typing import NDArray

from bench.contracts.levels import Levels, diffusion_levels
from bench.inputs.weights import HAND_OVER, Weights
from bench_plugins.backbones._checkpoint import first_line

# Schedulers differ in how they sample; the noise tables of these depend on the same few values.
SCHEDULERS = tuple(f"{name}Scheduler" for name in (
    "DDPM", "DDIM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "DDIMInverse",
    "DDIMParallel", "DDPMParallel", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSDE",
    "DPMSolverSinglestep", "HeunDiscrete", "KDPM2AncestralDiscrete", "KDPM2Discrete", "LCM",
    "LMSDiscrete", "TCD", "UniPCMultistep",
))  # fmt: skip
FLOW_SCHEDULERS = tuple(f"{name}Scheduler" for name in (
    "FlowMatchEulerDiscrete", "DPMSolverMultistep", "UniPCMultistep",
))  # fmt: skip
BETAS = {"beta_schedule", "beta_start", "beta_end"}
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
LARGEST_NUMBER = 10_000_000  # of any whole number in a config: vocabularies are the largest
MAX_BY_KEY = {"per_block": 20, "layers": 200}  # by a part of the name; making them takes time
SCALINGS = (1e-3, 1e3)
LEAST_EMBEDDING = 4  # of a guidance scale; of fewer numbers, half are not finite
LARGEST_LATENT = 1024  # side of a latent; the largest known models have 128


def read_config(
    weights: Weights, folder: str, key: str, classes: Collection[str]
) -> dict[str, Any]:
    """Return the config of a part with tensors.

    Raises:
        UserError: there is none, it is of another class, or it has a number that no model has.
    """
    name = f"{folder}/config.json"
    config = weights.read(name)
    check_class(weights, name, config, key, classes)
    if config.get("quantization_config"):
        raise weights.error(name, f"has a quantization_config: the model is quantised; {HAND_OVER}")
    for key, number in _numbers(config):
        most = next((most for part, most in MAX_BY_KEY.items() if part in key), LARGEST_NUMBER)
        if not abs(number) <= most or (key.endswith("eps") and not 0 < number < 0.1):
            raise weights.error(name, f"has {key[:100]} = {number!r:.40}, which no model has")
    return config


def read_diffusion(weights: Weights) -> Levels:
    """Return the levels of a DDPM-like schedule, from the scheduler's config.

    Raises:
        UserError: the scheduler is of another kind, or the table makes no sense.
    """
    name = "scheduler/scheduler_config.json"
    config = weights.read(name)
    if str(config.get("_class_name")).startswith("EDM"):
        raise weights.error(
            name,
            f"has _class_name {config['_class_name']:.100}: its network was trained on EDM's"
            " levels, whose inputs and outputs are rescaled, and no backbone does that. A model"
            " that predicts noise, v or a flow is wanted",
        )
    check_class(weights, name, config, "_class_name", SCHEDULERS)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES or config.get("use_flow_sigmas"):
        raise weights.error(
            name,
            f"has prediction_type {prediction!r:.100}; known are {', '.join(PREDICTION_TYPES)}",
        )
    steps = _train_steps(weights, name, config.get("num_train_timesteps"))
    kept = {"num_train_timesteps", "trained_betas", *BETAS}
    values = {key: config[key] for key in kept & config.keys()}
    zero_snr = config.get("rescale_betas_zero_snr") or False
    try:
        if not isinstance(zero_snr, bool):
            raise ValueError(f"rescale_betas_zero_snr is {zero_snr!r:.100}, not true or false")
        if config.get("trained_betas") is None and (missing := BETAS - values.keys()):
            raise ValueError(f"no trained_betas, and no {min(missing)}")
        scheduler = DDPMScheduler(**values, rescale_betas_zero_snr=zero_snr)
        if len(scheduler.alphas_cumprod) != steps:
            raise ValueError(f"trained_betas that are not {steps} numbers")
    except Exception as error:  # whatever diffusers raises where values make no sense
        raise weights.error(name, f"describes no scheduler: {first_line(error)}") from error
    alphas: NDArray[np.float32] = scheduler.alphas_cumprod.numpy()
    least = 0 if zero_snr else np.finfo(np.float32).tiny
    if rising := np.flatnonzero(~(np.diff(alphas) < 0)).tolist():
        raise weights.error(
            name,
            "gives cumulative alphas that do not fall from 1 towards 0: not from level"
            f" {rising[0]} to {rising[0] + 1}",
        )
    if not (alphas[0] <= 1 and alphas[-1] >= least):
        raise weights.error(
            name, f"gives cumulative alphas from {alphas[0]:.3g} to {alphas[-1]:.3g}, not 1 to 0"
        )
    if not alphas[0] > 0.5 > alphas[-1]:
        raise weights.error(
            name,
            f"gives levels from alpha {alphas[0]:.3g} to {alphas[-1]:.3g}; from nearly no noise"
            " to mostly noise is wanted",
        )
    return diffusion_levels(alphas, prediction)


def _train_steps(weights: Weights, name: str, steps: Any) -> int:
    if not is_whole(steps) or not 10 <= steps <= 100_000:
        raise weights.error(
            name, f"has num_train_timesteps {steps!r:.100}; 10 to 100,000 are known"
        )
    return steps


def check_flow(weights: Weights) -> None:
    """Refuse a scheduler whose config describes no levels of a flow (UserError)."""
    name = "scheduler/scheduler_config.json"
    config = weights.read(name)
    check_class(weights, name, config, "_class_name", FLOW_SCHEDULERS)
    if config["_class_name"] != FLOW_SCHEDULERS[0] and (  # solvers for both kinds
        not config.get("use_flow_sigmas") or config.get("prediction_type") != "flow_prediction"
    ):
        raise weights.error(name, "does not say use_flow_sigmas and flow_prediction")
    _train_steps(weights, name, config.get("num_train_timesteps", 1000))
    for key in ("shift", "flow_shift"):
        shift = config.get(key, 1.0)
        if not (is_number(shift) and 0 < shift <= 1000):
            raise weights.error(name, f"has {key} {shift!r:.100}; 0 to 1000 is possible")


def check_scaling(weights: Weights) -> None:
    """Refuse a VAE whose scaling factor or shift is not possible (UserError)."""
    name = "vae/config.json"
    config = weights.read(name)
    # Stable Diffusion 1's config has no scaling factor: it is the default of diffusers' class.
    scaling, shift = config.get("scaling_factor", 0.18215), config.get("shift_factor")
    if not is_number(scaling) or not SCALINGS[0] <= scaling <= SCALINGS[1]:
        raise weights.error(
            name,
            f"has scaling_factor {scaling!r:.100}; {SCALINGS[0]:g} to {SCALINGS[1]:g} is possible",
        )
    if shift is not None and (not is_number(shift) or abs(shift) > SCALINGS[1]):
        raise weights.error(name, f"has shift_factor {shift!r:.100}; expected a number")
    if config.get("latents_mean") is not None or config.get("latents_std") is not None:
        raise weights.error(
            name, "has latents_mean or latents_std, which this kind of pipeline does not apply"
        )


def check_network(weights: Weights, name: str, config: Any) -> None:
    """Refuse a network of another task, and sizes that no model has (UserError)."""
    name = f"{name}/config.json"
    inputs, outputs = config.get("in_channels"), config.get("out_channels")
    if is_whole(inputs) and is_whole(outputs) and inputs > outputs > 0:
        raise weights.error(
            name,
            f"has in_channels {inputs} and out_channels {outputs}: a network for inpainting,"
            " editing or upscaling, which is told another picture too. The text-to-image model"
            " that it was made from is wanted",
        )
    side, width = config.get("sample_size", 1), config.get("time_cond_proj_dim", LEAST_EMBEDDING)
    if not is_whole(side) or not 1 <= side <= LARGEST_LATENT:
        raise weights.error(
            name, f"has sample_size {side!r:.100}; 1 to {LARGEST_LATENT} is possible"
        )
    if width is not None and (not is_whole(width) or width < LEAST_EMBEDDING):
        raise weights.error(
            name,
            f"has time_cond_proj_dim {width!r:.100}; {LEAST_EMBEDDING} or more is possible",
        )


def check_class(
    weights: Weights, name: str, config: Mapping[str, Any], key: str, classes: Collection[str]
) -> None:
    """Refuse a config that names none of the known classes (UserError)."""
    if config.get(key) not in classes:
        raise weights.error(name, f"has {key} {config.get(key)!r:.100}; known are {_some(classes)}")


def _some(items: Collection[str]) -> str:
    names = list(items)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} others" if len(names) > 5 else "")


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number in a config, with the innermost key that leads to it."""
    waiting: list[tuple[str, Any]] = list(config.items())
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.items())
        elif isinstance(value, list):
            waiting.extend((key, item) for item in value)
        elif is_whole(value) or isinstance(value, float):
            yield key, value


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value read from JSON is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether a value read from JSON is a finite number of sane size."""
    return (is_whole(value) or isinstance(value, float)) and abs(value) < 1e30
