"""Errors of every family computed without the toolkit: a pipeline's own modules, called by hand.

Written from the models' documentation, in float32, one prompt and one draw at a time.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from PIL import Image

STEPS = 1000  # noise levels of every pipeline here


@torch.no_grad()
def error(
    kind: str, pipe: Any, image: Image.Image, text: str, row: int, eps: torch.Tensor
) -> float:
    """Return the mean squared error of one cell.

    Args:
        kind: the family.
        pipe: its pipeline.
        image: square, and as large as the model wants.
        text: the prompt.
        row: the noise level.
        eps: the noise, float32 [1, C, H, W].
    """
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    found = pipe.vae.encode(pixels.float() / 127.5 - 1)
    latent = found.latent_dist.mean if hasattr(found, "latent_dist") else found.latent
    latent = latent - (getattr(pipe.vae.config, "shift_factor", None) or 0)
    latent = latent * pipe.vae.config.scaling_factor
    if kind in FLOWS:
        sigma = FLOWS[kind](pipe, (row + 1) / STEPS)
        x_t, wanted = (1 - sigma) * latent + sigma * eps, eps - latent
        time = torch.tensor([STEPS * sigma])
    else:
        time = torch.tensor([row])
        share = pipe.scheduler.alphas_cumprod[row]
        x_t, wanted = share.sqrt() * latent + (1 - share).sqrt() * eps, eps
    return float(F.mse_loss(PREDICTIONS[kind](pipe, x_t, time, text), wanted))


def _padded(tokenizer: Any, text: str, length: int) -> Any:
    return tokenizer(
        text, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )


def _sdxl(pipe: Any, x_t: torch.Tensor, time: torch.Tensor, text: str) -> torch.Tensor:
    one = pipe.text_encoder(_padded(pipe.tokenizer, text, 77).input_ids, output_hidden_states=True)
    two = pipe.text_encoder_2(
        _padded(pipe.tokenizer_2, text, 77).input_ids, output_hidden_states=True
    )
    embeddings = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    side = float(2 * x_t.shape[-1])  # this autoencoder halves
    added = {
        "text_embeds": two.text_embeds,
        "time_ids": torch.tensor([[side, side, 0.0, 0.0, side, side]]),
    }
    return pipe.unet(x_t, time, embeddings, added_cond_kwargs=added).sample  # type: ignore[no-any-return]


def _dit(pipe: Any, x_t: torch.Tensor, time: torch.Tensor, text: str) -> torch.Tensor:
    label = torch.tensor([{"cat": 3, "fir tree": 11}[text]])
    answer = pipe.transformer(x_t, timestep=time, class_labels=label).sample
    return answer.chunk(2, dim=1)[0]  # type: ignore[no-any-return]


def _sd3(pipe: Any, x_t: torch.Tensor, time: torch.Tensor, text: str) -> torch.Tensor:
    one, two = (
        encoder(_padded(tokenizer, text, 77).input_ids, output_hidden_states=True)
        for encoder, tokenizer in (
            (pipe.text_encoder, pipe.tokenizer),
            (pipe.text_encoder_2, pipe.tokenizer_2),
        )
    )
    long = pipe.text_encoder_3(_padded(pipe.tokenizer_3, text, 256).input_ids)[0]
    short = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    wide = torch.zeros(1, 77, long.shape[-1])
    wide[..., : short.shape[-1]] = short
    return pipe.transformer(  # type: ignore[no-any-return]
        x_t,
        timestep=time,
        encoder_hidden_states=torch.cat([wide, long], dim=1),
        pooled_projections=torch.cat([one.text_embeds, two.text_embeds], dim=-1),
    ).sample


def _flux(pipe: Any, x_t: torch.Tensor, time: torch.Tensor, text: str) -> torch.Tensor:
    guided = pipe.transformer.config.guidance_embeds
    pooled = pipe.text_encoder(_padded(pipe.tokenizer, text, 77).input_ids).pooler_output
    length = 512 if guided else 256
    long = pipe.text_encoder_2(_padded(pipe.tokenizer_2, text, length).input_ids)[0]
    _, channels, side, _ = x_t.shape
    tokens, places = [], []
    for row in range(0, side, 2):
        for column in range(0, side, 2):
            square = x_t[0, :, row : row + 2, column : column + 2]
            tokens.append(square.reshape(channels * 4))
            places.append([0.0, row / 2, column / 2])
    answer = pipe.transformer(
        hidden_states=torch.stack(tokens)[None],
        timestep=time / STEPS,
        guidance=torch.tensor([3.5]) if guided else None,
        pooled_projections=pooled,
        encoder_hidden_states=long,
        txt_ids=torch.zeros(length, 3),
        img_ids=torch.tensor(places),
    ).sample
    image = torch.empty_like(x_t)
    for token, (_, down, across) in zip(answer[0], places, strict=True):
        top, left = int(2 * down), int(2 * across)
        image[0, :, top : top + 2, left : left + 2] = token.reshape(channels, 2, 2)
    return image


def _pixart(pipe: Any, x_t: torch.Tensor, time: torch.Tensor, text: str) -> torch.Tensor:
    alpha = type(pipe).__name__ == "PixArtAlphaPipeline"
    tokens = _padded(pipe.tokenizer, text, 120 if alpha else 300)
    embeddings = pipe.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    side = 2.0 * x_t.shape[-1]
    added = {"resolution": torch.tensor([[side, side]]), "aspect_ratio": torch.tensor([[1.0]])}
    answer = pipe.transformer(
        x_t,
        encoder_hidden_states=embeddings,
        encoder_attention_mask=tokens.attention_mask,
        timestep=time,
        added_cond_kwargs=added if alpha else {"resolution": None, "aspect_ratio": None},
    ).sample
    return answer.chunk(2, dim=1)[0]  # type: ignore[no-any-return]


def _sana(pipe: Any, x_t: torch.Tensor, time: torch.Tensor, text: str) -> torch.Tensor:
    lines = inspect.signature(type(pipe).__call__).parameters["complex_human_instruction"].default
    prefix = "\n".join(lines)
    length = len(pipe.tokenizer.encode(prefix)) + 300 - 2
    pipe.tokenizer.padding_side = "right"
    tokens = _padded(pipe.tokenizer, prefix + text, length)
    embeddings = pipe.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    kept = [0, *range(length - 299, length)]
    return pipe.transformer(  # type: ignore[no-any-return]
        x_t,
        encoder_hidden_states=embeddings[:, kept],
        encoder_attention_mask=tokens.attention_mask[:, kept],
        timestep=time * pipe.transformer.config.timestep_scale,
    ).sample


Prediction = Callable[[Any, torch.Tensor, torch.Tensor, str], torch.Tensor]
PREDICTIONS: dict[str, Prediction] = {
    "sdxl": _sdxl,
    "dit": _dit,
    "sd3": _sd3,
    "flux": _flux,
    "schnell": _flux,
    "pixart": _pixart,
    "sigma": _pixart,
    "sana": _sana,
}


def _shifted(pipe: Any, time: float) -> float:
    return 3 * time / (1 + 2 * time)


def _shifted_by_size(pipe: Any, time: float) -> float:
    tokens = 16  # of the small pictures: 4 x 4 squares
    mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (tokens - 256)
    return math.exp(mu) / (math.exp(mu) + 1 / time - 1)


# How a flow's levels are spread: sigma at a fraction of the levels.
FLOWS: dict[str, Callable[[Any, float], float]] = {
    "sd3": _shifted,
    "flux": _shifted_by_size,
    "schnell": lambda pipe, time: time,
    "sana": _shifted,
}
