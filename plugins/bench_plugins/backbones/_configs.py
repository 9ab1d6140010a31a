"""Validate the configs of a pipeline's network, VAE and scheduler."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np
from diffusers import DDPMScheduler
from numpy.typing import NDArray

from bench.contracts.levels import Levels, diffusion_levels
from bench.inputs.weights import HAND_OVER, Weights
from bench_plugins.backbones._checkpoint import explained

# These schedulers differ in how they sample. Their noise levels depend on the same few values.
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
MAX_NUMBER = 10_000_000  # of all numbers in configs, vocabulary sizes are the largest
# By substring of the key. More layers take long to build; theta is that of rotary embeddings.
MAX_BY_KEY = {"per_block": 20, "layers": 200, "theta": 1e12}
SCALING_RANGE = (1e-3, 1e3)
MIN_GUIDANCE_EMBEDDING = 4  # dimensions; with fewer, half of the values are not finite
MAX_LATENT_SIDE = 1024  # the largest known models have 128


def read_config(
    weights: Weights, folder: str, key: str, classes: Collection[str]
) -> dict[str, Any]:
    """Return the validated config of a component with tensors. Its `key` must be in `classes`.

    Raises UserError if it is missing, of another class, quantised, or has an implausible number.
    """
    name = f"{folder}/config.json"
    config = weights.read(name)
    check_class(weights, name, config, key, classes)
    if config.get("quantization_config"):
        raise weights.error(name, f"has a quantization_config: the model is quantised; {HAND_OVER}")
    for key, number in numbers(config):
        most = next((most for word, most in MAX_BY_KEY.items() if word in key), MAX_NUMBER)
        if not abs(number) <= most:
            raise weights.error(
                name, f"has {key[:100]} = {number!r:.40}; expected an absolute value up to {most:,}"
            )
        if key.endswith("eps") and not 0 < number < 0.1:
            raise weights.error(
                name, f"has {key[:100]} = {number!r:.40}; expected more than 0 and less than 0.1"
            )
    return config


def read_diffusion(weights: Weights) -> Levels:
    """Return the noise levels of a DDPM-like schedule, from the scheduler's config.

    Raises UserError if the scheduler is of another kind, or its cumulative alphas do not fall from
    near 1 to near 0.
    """
    name = "scheduler/scheduler_config.json"
    config = weights.read(name)
    if str(config.get("_class_name")).startswith("EDM"):
        raise weights.error(
            name,
            f"has _class_name {config['_class_name']:.100}: its network was trained with EDM"
            " preconditioning, which is not supported. Use a model that predicts noise, v, the"
            " clean sample or a flow",
        )
    check_class(weights, name, config, "_class_name", SCHEDULERS)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES or config.get("use_flow_sigmas"):
        raise weights.error(
            name,
            f"has prediction_type {prediction!r:.100}; expected {', '.join(PREDICTION_TYPES)}",
        )
    steps = _train_steps(weights, name, config.get("num_train_timesteps"))
    keys = {"num_train_timesteps", "trained_betas", *BETAS}
    values = {key: config[key] for key in keys & config.keys()}
    zero_snr = config.get("rescale_betas_zero_snr") or False
    with explained(weights, name, "does not describe a scheduler"):
        if not isinstance(zero_snr, bool):
            raise ValueError(f"rescale_betas_zero_snr is {zero_snr!r:.100}; expected true or false")
        if config.get("trained_betas") is None and (missing := BETAS - values.keys()):
            raise ValueError(f"it has neither trained_betas nor {min(missing)}")
        scheduler = DDPMScheduler(**values, rescale_betas_zero_snr=zero_snr)
        if len(scheduler.alphas_cumprod) != steps:
            raise ValueError(f"trained_betas must be {steps} numbers")
    alphas: NDArray[np.float32] = scheduler.alphas_cumprod.numpy()
    least = 0 if zero_snr else np.finfo(np.float32).tiny
    if rising := np.flatnonzero(~(np.diff(alphas) < 0)).tolist():
        raise weights.error(
            name,
            "describes cumulative alphas that do not always fall: not from level"
            f" {rising[0]} to {rising[0] + 1}",
        )
    # The second condition: from nearly no noise to mostly noise.
    if not (alphas[0] <= 1 and alphas[-1] >= least) or not alphas[0] > 0.5 > alphas[-1]:
        raise weights.error(
            name,
            f"describes cumulative alphas from {alphas[0]:.3g} to {alphas[-1]:.3g}; expected from"
            " near 1 to near 0",
        )
    return diffusion_levels(alphas, prediction)


def _train_steps(weights: Weights, name: str, steps: Any) -> int:
    if not is_whole(steps) or not 10 <= steps <= 100_000:
        raise weights.error(name, f"has num_train_timesteps {steps!r:.100}; expected 10 to 100,000")
    return steps


def check_flow(weights: Weights) -> None:
    """Raise UserError unless the scheduler's config describes a flow with a plausible shift."""
    name = "scheduler/scheduler_config.json"
    config = weights.read(name)
    check_class(weights, name, config, "_class_name", FLOW_SCHEDULERS)
    # The other classes are solvers for diffusion and flows.
    if config["_class_name"] != FLOW_SCHEDULERS[0] and (
        not config.get("use_flow_sigmas") or config.get("prediction_type") != "flow_prediction"
    ):
        raise weights.error(
            name, "must have use_flow_sigmas: true and prediction_type: flow_prediction"
        )
    _train_steps(weights, name, config.get("num_train_timesteps", 1000))
    for key in ("shift", "flow_shift"):
        shift = config.get(key, 1.0)
        if not (is_number(shift) and 0 < shift <= 1000):
            raise weights.error(
                name, f"has {key} {shift!r:.100}; expected more than 0 and at most 1000"
            )


def check_scaling(weights: Weights) -> None:
    """Raise UserError if the VAE's scaling of latents is out of range."""
    name = "vae/config.json"
    config = weights.read(name)
    # Stable Diffusion 1's config has no scaling factor; this is the default in diffusers.
    scaling, shift = config.get("scaling_factor", 0.18215), config.get("shift_factor")
    least, most = SCALING_RANGE
    if not is_number(scaling) or not least <= scaling <= most:
        raise weights.error(
            name, f"has scaling_factor {scaling!r:.100}; expected {least:g} to {most:g}"
        )
    if shift is not None and (not is_number(shift) or abs(shift) > most):
        raise weights.error(
            name, f"has shift_factor {shift!r:.100}; expected {-most:g} to {most:g}"
        )


def check_network(weights: Weights, name: str, config: Any) -> None:
    """Raise UserError if a network is made for another task, or a size is out of range."""
    name = f"{name}/config.json"
    inputs, outputs = config.get("in_channels"), config.get("out_channels")
    if is_whole(inputs) and is_whole(outputs) and inputs > outputs > 0:
        raise weights.error(
            name,
            f"has in_channels {inputs} and out_channels {outputs}: a network for inpainting,"
            " editing or upscaling, which needs another image as input. Use the text-to-image"
            " model that it was trained from",
        )
    side = config.get("sample_size", 1)
    if not is_whole(side) or not 1 <= side <= MAX_LATENT_SIDE:
        raise weights.error(name, f"has sample_size {side!r:.100}; expected 1 to {MAX_LATENT_SIDE}")
    width = config.get("time_cond_proj_dim")
    if width is not None and (not is_whole(width) or width < MIN_GUIDANCE_EMBEDDING):
        raise weights.error(
            name,
            f"has time_cond_proj_dim {width!r:.100}; expected at least {MIN_GUIDANCE_EMBEDDING}",
        )


def check_class(
    weights: Weights, name: str, config: Mapping[str, Any], key: str, classes: Collection[str]
) -> None:
    """Raise UserError, which calls the config `name`, if its `key` is not one of `classes`."""
    if config.get(key) not in classes:
        names = list(classes)
        others = f" and {len(names) - 5} others" if len(names) > 5 else ""
        raise weights.error(
            name,
            f"has {key} {config.get(key)!r:.100}; expected {', '.join(names[:5])}{others}",
        )


def numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number in nested mappings and lists, with its innermost key."""
    stack: list[tuple[str, Any]] = list(config.items())
    while stack:
        key, value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.items())
        elif isinstance(value, list):
            stack.extend((key, item) for item in value)
        elif is_whole(value) or isinstance(value, float):
            yield key, value


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether a value read from JSON is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether a value read from JSON is a finite number below 1e30."""
    return (is_whole(value) or isinstance(value, float)) and abs(value) < 1e30
