"""Errors of every family computed without the toolkit: a pipeline's own modules, called by hand.

Written from the models' documentation, in float32, one prompt and one draw at a time.
"""

from __future__ import annotations

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


Prediction = Callable[[Any, torch.Tensor, torch.Tensor, str], torch.Tensor]
PREDICTIONS: dict[str, Prediction] = {"sdxl": _sdxl}
FLOWS: dict[str, Callable[[Any, float], float]] = {}
