"""Infer how a pipeline packs and normalises latents, by passing known numbers through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contracts.levels import Levels, diffusion_levels, flow_levels
from bench.errors import UserError
from bench_plugins.backbones._facts import Facts

DIGIT = 256  # all integers up to here are exact in every floating-point dtype


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
            raise UserError(
                f"{who} cannot be used: expected its latents, scaled and shifted, as the input of"
                " `vae.decode`."
            )
        return cls(tuple(decoded.shape[1:]), source.long(), scale, shift)

    def latents(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pipeline's latents for the mean and standard deviation of a VAE's posterior.

        Both are float32 [n, elements].
        """
        inverse = self.source.argsort()
        scale, shift = self.scale.to(mean.device), self.shift.to(mean.device)
        pair = (mean.flatten(1).double() - shift) / scale, deviation.flatten(1) / scale.abs()
        return pair[0][:, inverse].float(), pair[1][:, inverse].float()


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
        raise UserError(
            f"{who} cannot be used: the sample that it passes to its scheduler is not its latents."
        )
    return order


def levels_of(scheduler: Any, facts: Facts, schedule: Mapping[str, Any], who: str) -> Levels:
    """Return the noise levels of a pipeline's scheduler, with the scheduler's time.

    For a flow, that is the table of the scheduler's config, shifted once. `set_timesteps`, called
    with the keywords `schedule`, would shift it a second time. Raises UserError, which names the
    pipeline `who`, if the levels are unknown or not of the declared kind.
    """
    config, name = scheduler.config, type(scheduler).__name__
    flow = bool(config.get("use_flow_sigmas")) or "FlowMatch" in name
    kind = "flow" if flow else "diffusion"
    if facts.levels not in (None, kind) or not (flow or hasattr(scheduler, "alphas_cumprod")):
        raise UserError(
            f"{who} cannot be used with its {name}: it does not have the noise levels of a"
            f" {facts.levels or 'flow or diffusion'} model."
        )
    try:
        if not flow:
            return diffusion_levels(scheduler.alphas_cumprod.numpy(), config.prediction_type)
        shift = config.get("flow_shift", config.get("shift", 1.0))
        dynamic = bool(config.get("use_dynamic_shifting"))
        mu = schedule["mu"] if dynamic else None
        levels = flow_levels({**config, "shift": shift}, mu)
        if "timesteps" not in schedule:
            return levels
        # If the pipeline sets times as well as levels, the times are not shifted.
        return replace(levels, time=np.arange(1.0, len(levels) + 1))
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{who} cannot be used with its {name}: {error}.") from error


def grouped(keys: list[Any], predict: Callable[[list[int]], Tensor]) -> Tensor:
    """Return the predictions of all rows, [B, …]. Rows with equal keys are predicted together."""
    by_key: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        by_key.setdefault(key, []).append(row)
    predictions = [predict(rows) for rows in by_key.values()]
    order = torch.tensor([row for rows in by_key.values() for row in rows])
    return torch.cat(predictions)[order.argsort().to(predictions[0].device)]
