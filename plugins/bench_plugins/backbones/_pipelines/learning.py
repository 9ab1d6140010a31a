"""Learn how a pipeline is called from trial calls: prompts, noise levels, packing, normalisation.

How latents are packed and normalised is inferred by passing known numbers through the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bench.contracts.levels import Levels, diffusion_levels, flow_levels
from bench.discovery.loading import load_plugins
from bench.discovery.sources import source_hashes
from bench.errors import UserError
from bench.machine.cache import cache_dir
from bench.machine.environment import installed_distributions
from bench.store.formats.identity import digest
from bench_plugins.backbones._facts import Facts
from bench_plugins.backbones._pipelines.gate import supported, unusable
from bench_plugins.backbones._pipelines.probing import (
    PROBED_STEPS,
    check_steps,
    is_flow,
    usual_sampler,
)
from bench_plugins.backbones._pipelines.runner import Runner, at_step
from bench_plugins.backbones._pipelines.slots import SHORT, Slots

DIGIT = 256  # all integers up to here are exact in every floating-point dtype
MEASURED_SIDE = 128  # pixels; the most that a known autoencoder turns into one element


@dataclass(frozen=True)
class CallFacts:
    """What trial calls of a pipeline teach. It does not depend on the device.

    Attributes:
        call: the keywords of its `__call__`, without prompts.
        slots: describes the results of its `encode_prompt`; None if it takes class labels.
        sample_shape: the shape of the first latents of one sample, before packing.
        levels: the noise levels.
        normalisation: how its latents are scaled before they are decoded.
        order: index of the latent's element at each place of a packed sample, int64 [elements];
            None if elements are not reordered.
        resolution: the side of its images in pixels.
        times: `each` if one call accepts a time per sample; `one` if all must have the same time.
    """

    call: Mapping[str, Any]
    slots: Slots | None
    sample_shape: tuple[int, ...]
    levels: Levels
    normalisation: Normalisation
    order: Tensor | None
    resolution: int
    times: str

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of a latent: that of the sample, without the axis of its frame."""
        shape = list(self.sample_shape)
        if len(shape) == 4:
            shape.remove(1)
        return shape[0], shape[1], shape[2]

    def on(self, device: torch.device) -> Self:
        """Return the facts with their tensors on a device."""
        return replace(
            self,
            slots=self.slots and self.slots.on(device),
            normalisation=self.normalisation.on(device),
            order=None if self.order is None else self.order.to(device),
        )

    def unpacked(self, samples: Tensor) -> Tensor:
        """Return the latents in packed samples, [n, C, H, W].

        Values beyond them, such as those of a predicted variance, are left out.
        """
        flat = samples.reshape(len(samples), -1)
        if self.order is not None:
            flat = torch.empty_like(flat).index_copy(1, self.order, flat)
        return flat[:, : prod(self.latent_shape)].view(-1, *self.latent_shape)


def tried_file(*state: object) -> Path:
    """Return the file for how samples of a pipeline in a state, such as its hash, are batched."""
    code = source_hashes(load_plugins(), [])
    key = digest({"state": [code, *state, installed_distributions()]})
    return cache_dir("calls") / key


def learn(runner: Runner, resolution: int | None = None) -> CallFacts:
    """Return what trial calls of a pipeline teach.

    Raises UserError if it does not follow the conventions listed in `calls`, or its images have
    another `resolution`.
    """
    who, facts = runner.who, runner.declared or Facts()
    _check_kind(runner.pipe.scheduler, facts, who)
    with torch.inference_mode(False), torch.no_grad():
        with supported(who, "a call with one prompt fails"):
            if runner.declared is None:
                runner = _unguided(runner)
        with supported(who, "its prompts cannot be encoded"):
            if not runner.takes_labels:
                runner = replace(runner, slots=Slots.inferred(runner.encoded_prompts, who))
        with supported(who, "its first latents and noise levels are not found"):
            first = runner.first_latents(facts.steps)
            sample_shape = _checked_shape(first.shapes[0][1:], who)
            levels = levels_of(runner.pipe.scheduler, facts, first.schedule or {}, who)
        with supported(who, "its scheduler does not step from one noise level to another"):
            sampler, schedule = usual_sampler(runner.pipe.scheduler), {}
            if "timesteps" in (first.schedule or {}):  # its times are not those of its scheduler
                sampler = runner.pipe.scheduler
                schedule = runner.first_latents(PROBED_STEPS).schedule or {}
            schedule = schedule or {"num_inference_steps": PROBED_STEPS}
            check_steps(sampler, levels, schedule, who)
        with supported(who, "its latents are not scaled and decoded as expected"):
            probes = Normalisation.probes(prod(sample_shape))
            decoded = runner.decoder_input(probes, torch.as_tensor(levels.time[-1:]))
            normalisation = Normalisation.from_probes(decoded, who)
            order = _order(runner, sample_shape, levels)
            pixels = pixels_per_latent(runner.pipe.vae, runner.device, normalisation.has_frames)
    height, own = (side * pixels for side in normalisation.shape[-2:])
    if height != own:
        raise UserError(
            f"{who} makes images of {height} × {own} pixels by default, and images are scored as"
            f" squares: choose their side, such as --resolution {min(height, own)}, or"
            f" bench.load_backbone(pipe, resolution={min(height, own)})."
        )
    if resolution not in (None, own):
        raise UserError(
            f"--resolution must be {own}, got {resolution}: {who} makes images of that size only."
        )
    call, slots = runner.call, runner.slots
    return CallFacts(
        call, slots, sample_shape, levels, normalisation, order, own, facts.times
    )  # fmt: skip


def _unguided(runner: Runner) -> Runner:
    """Return the runner with keywords with which the network gets one sample per prompt.

    Raises UserError if there are none.
    """
    scale = runner.parameters.keys() & {"guidance_scale"}
    time = torch.as_tensor(runner.pipe.scheduler.timesteps[-1:]).cpu()
    samples: list[int] = []
    for keywords in ({}, dict.fromkeys(scale, 0.0)):
        changed = replace(runner, call={**runner.call, **keywords})
        components = changed.counted()
        changed.run(None, [SHORT], time, at_step, components=components)
        (samples,) = (network.samples for network in components.values())
        if samples == [1]:
            return changed
    raise unusable(
        runner.who,
        f"guidance cannot be switched off. Its network is called with batches of {samples} for a"
        " single sample",
    )


def _checked_shape(shape: tuple[int, ...], who: str) -> tuple[int, ...]:
    """Return the shape of a sample. Raises UserError unless it is that of one image."""
    if len(shape) == 3 or (len(shape) == 4 and 1 in shape):  # or of a video of one frame
        return shape
    raise unusable(who, f"expected latents of one image, (C, H, W), got shape {list(shape)}")


def _order(runner: Runner, sample_shape: tuple[int, ...], levels: Levels) -> Tensor | None:
    """Return `CallFacts.order`."""
    latents = digits(prod(sample_shape))
    encodings, prompts = runner.short_prompts(len(latents))
    time = torch.as_tensor(levels.time[len(levels) // 2 :][:1])
    try:
        echo = runner.counted(echoes=True)
        call = runner.run(encodings, prompts, time, at_step, latents=latents, components=echo)
    except Exception:  # for example, the network predicts more channels than it takes
        call = runner.run(encodings, prompts, time, at_step, latents=latents)
    order = order_of(call.sample, runner.who)
    return None if bool((order.diff() == 1).all()) else order


@dataclass(frozen=True)
class Normalisation:
    """How a pipeline scales, shifts and reorders its latents before they are decoded.

    Element j of the decoder's input is scale[j] · latent[source[j]] + shift[j]. `scale` and `shift`
    are float64. `shape` is that of the input, without the axis of samples.
    """

    shape: tuple[int, ...]
    source: Tensor
    scale: Tensor
    shift: Tensor

    @property
    def has_frames(self) -> bool:
        """Whether the autoencoder takes videos."""
        return len(self.shape) == 4

    def on(self, device: torch.device) -> Self:
        """Return the normalisation with its tensors on a device."""
        source, scale, shift = (t.to(device) for t in (self.source, self.scale, self.shift))
        return replace(self, source=source, scale=scale, shift=shift)

    @staticmethod
    def probes(elements: int) -> Tensor:
        """Return latents for `from_probes`: zeros, ones and 0, 1, 2 …, float64 [3, elements]."""
        count = torch.arange(elements)
        return torch.stack([torch.zeros(elements), torch.ones(elements), count]).double()

    @classmethod
    def from_probes(cls, decoded: Tensor, who: str) -> Normalisation:
        """Return the normalisation that turns the probes into the decoder's input `decoded` [3, …].

        Raises UserError, which names the pipeline `who`, if no normalisation does.
        """
        shift, ones, counted = decoded.double().flatten(1).cpu()
        scale = ones - shift
        source = ((counted - shift) / scale).round()
        if not torch.equal(source.sort().values, torch.arange(len(source)).double()):
            raise unusable(
                who, "expected its latents, scaled and shifted, as the input of `vae.decode`"
            )
        return cls(tuple(decoded.shape[1:]), source.long(), scale, shift)

    def latents(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pipeline's latents for the mean and standard deviation of a VAE's posterior.

        Both are float32 [n, elements].
        """
        inverse = self.source.argsort()
        mean = (mean.flatten(1).double() - self.shift) / self.scale
        deviation = deviation.flatten(1) / self.scale.abs()
        return mean[:, inverse].float(), deviation[:, inverse].float()


def digits(elements: int) -> Tensor:
    """Return the numbers 0, 1, … to base `DIGIT`, lowest digit first, float32 [n, elements]."""
    number = torch.arange(elements)
    by_digit: list[Tensor] = []
    while not by_digit or bool(number.any()):
        by_digit.append((number % DIGIT).float())
        number = number // DIGIT
    return torch.stack(by_digit)


def order_of(packed: Tensor, who: str) -> Tensor:
    """Return the index of the latent's element for each element of a packed sample, int64.

    `packed` [n, …] is the sample of the latents that `digits` returns. Raises UserError, which
    names the pipeline `who`, if it is not a permutation of them.
    """
    powers = DIGIT ** torch.arange(len(packed))
    order = (packed.flatten(1).double().cpu() * powers[:, None]).sum(dim=0).long()
    if not torch.equal(order.sort().values, torch.arange(len(order))):
        raise unusable(who, "the sample that it passes to its scheduler is not its latents")
    return order


def levels_of(scheduler: Any, facts: Facts, schedule: Mapping[str, Any], who: str) -> Levels:
    """Return the noise levels of a pipeline's scheduler, with the scheduler's time.

    For a flow, that is the table of the scheduler's config, shifted once. `set_timesteps`, called
    with the keywords `schedule`, would shift it a second time. Raises UserError, which names the
    pipeline `who`, if the levels are unknown.
    """
    config, name = scheduler.config, type(scheduler).__name__
    try:
        if not is_flow(scheduler):
            # Some samplers ignore that the model was trained up to pure noise, or nearly so.
            is_rescaled = config.get("rescale_betas_zero_snr")
            alphas = (usual_sampler(scheduler) if is_rescaled else scheduler).alphas_cumprod.numpy()
            if not ((np.diff(alphas) < 0).all() and alphas[0] > 0.5 > alphas[-1]):
                raise ValueError("cumulative alphas must fall from near 1 to near 0")
            return diffusion_levels(alphas, config.prediction_type)
        shift = getattr(scheduler, "_shift", config.get("flow_shift", config.get("shift", 1.0)))
        dynamic = bool(config.get("use_dynamic_shifting"))
        mu = schedule["mu"] if dynamic else None
        levels = flow_levels({**config, "shift": shift}, mu, float(config.num_train_timesteps))
        if "timesteps" not in schedule:
            return levels
        # If the pipeline sets times as well as levels, the times are not shifted.
        return replace(levels, time=np.arange(1.0, len(levels) + 1))
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{who} cannot be used with its {name}: {error}.") from error


def _check_kind(scheduler: Any, facts: Facts, who: str) -> None:
    """Raise UserError unless a scheduler has noise levels of the declared kind, or a known one."""
    kind = "flow" if is_flow(scheduler) else "diffusion"
    is_known = kind == "flow" or hasattr(scheduler, "alphas_cumprod")
    if facts.levels not in (None, kind) or not is_known:
        raise UserError(
            f"{who} cannot be used with its {type(scheduler).__name__}: it does not have the noise"
            f" levels of a {facts.levels or 'flow or diffusion'} model."
        )


def pixels_per_latent(vae: Any, device: torch.device, frames: bool = False) -> int:
    """Return the number of pixels per element of a latent, along a side.

    It is measured, because a pipeline's own factor may include the packing of latents. With
    `frames`, the autoencoder takes videos.
    """
    pixels = torch.zeros(1, 3, *([1] if frames else []), MEASURED_SIDE, MEASURED_SIDE)
    return MEASURED_SIDE // int(posterior_of(vae, pixels.to(device))[0].shape[-1])


def posterior_of(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of a VAE's posterior, not normalised.

    The deviation is 0 if the VAE has no posterior.
    """
    encoded = vae.encode(pixels.to(vae.dtype))
    if (posterior := getattr(encoded, "latent_dist", None)) is not None:
        return posterior.mean, posterior.std
    mean = encoded.latent if hasattr(encoded, "latent") else encoded.latents
    return mean, torch.zeros_like(mean)
