"""A pipeline's packing and normalisation of latents, learned by sending numbers through it."""

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

DIGIT = 256  # half precision holds whole numbers up to here


@dataclass(frozen=True)
class Normalisation:
    """How a pipeline scales, shifts and orders its latents before they are decoded.

    Element j of the decoder's input is scale[j] · latent[place[j]] + shift[j].

    Attributes:
        shape: of the decoder's input, without the axis of samples.
        place: int64 [elements].
        scale: float64 [elements].
        shift: float64 [elements].
    """

    shape: tuple[int, ...]
    place: Tensor
    scale: Tensor
    shift: Tensor

    @staticmethod
    def probes(elements: int) -> Tensor:
        """Return the latents to send for `from_probes`, float64 [3, elements]."""
        count = torch.arange(elements)
        return torch.stack([torch.zeros(elements), torch.ones(elements), count]).double()

    @classmethod
    def from_probes(cls, decoded: Tensor, who: str) -> Normalisation:
        """Return the normalisation, from the decoder's input for the probes.

        Raises:
            UserError: the decoder is given something else than scaled and shifted latents.
        """
        shift, ones, counted = decoded.double().flatten(1).cpu()
        scale = ones - shift
        place = ((counted - shift) / scale).round()
        if not torch.equal(place.sort().values, torch.arange(len(place)).double()):
            raise UserError(
                f"{who} cannot be used: what it decodes is not its latents, scaled and shifted."
            )
        return cls(tuple(decoded.shape[1:]), place.long(), scale, shift)

    def latents(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pipeline's latents of an encoder's output, float32 [n, elements] each."""
        inverse = self.place.argsort()
        scale, shift = self.scale.to(mean.device), self.shift.to(mean.device)
        pair = (mean.flatten(1).double() - shift) / scale, deviation.flatten(1) / scale.abs()
        return pair[0][:, inverse].float(), pair[1][:, inverse].float()


def digits(elements: int) -> Tensor:
    """Return the numbers 0, 1, … in digits that every precision holds, float32 [n, elements]."""
    number = torch.arange(elements)
    places: list[Tensor] = []
    while not places or bool(number.any()):
        places.append((number % DIGIT).float())
        number = number // DIGIT
    return torch.stack(places)


def order_of(packed: Tensor, who: str) -> Tensor:
    """Return where each element of a packed sample came from, int64 [elements].

    Args:
        packed: the sample for the latents `digits`.
        who: the pipeline, for messages.

    Raises:
        UserError: the sample is not the latents in another order.
    """
    powers = DIGIT ** torch.arange(len(packed))
    order = (packed.flatten(1).double().cpu() * powers[:, None]).sum(dim=0).long()
    if not torch.equal(order.sort().values, torch.arange(len(order))):
        raise UserError(
            f"{who} cannot be used: its scheduler steps something else than the latents."
        )
    return order


def levels_of(scheduler: Any, facts: Facts, schedule: Mapping[str, Any], who: str) -> Levels:
    """Return the noise levels that a pipeline's scheduler describes; the time is the scheduler's.

    Those of a flow are the scheduler's first table, shifted once: `set_timesteps` shifts it again.

    Args:
        scheduler: the pipeline's.
        facts: what is declared of the pipeline.
        schedule: what the pipeline gives `set_timesteps`.
        who: the pipeline, for messages.

    Raises:
        UserError: it describes no levels, or those of another kind than declared.
    """
    config, name = scheduler.config, type(scheduler).__name__
    flow = bool(config.get("use_flow_sigmas")) or "FlowMatch" in name
    kind = "flow" if flow else "diffusion"
    if facts.levels not in (None, kind) or not (flow or hasattr(scheduler, "alphas_cumprod")):
        raise UserError(
            f"{who} cannot be used with its {name}: it has no levels of a"
            f" {facts.levels or 'flow or diffusion'}."
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
        # If the pipeline sets times beside levels, they are not shifted with the levels.
        return replace(levels, time=np.arange(1.0, len(levels) + 1))
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{who} cannot be used with its {name}: {error}.") from error


def grouped(keys: list[Any], predict: Callable[[list[int]], Tensor]) -> Tensor:
    """Return predictions of all rows, [B, …]; rows with the same key are predicted together."""
    by_key: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        by_key.setdefault(key, []).append(row)
    parts = [predict(rows) for rows in by_key.values()]
    order = torch.tensor([row for rows in by_key.values() for row in rows])
    return torch.cat(parts)[order.argsort().to(parts[0].device)]
