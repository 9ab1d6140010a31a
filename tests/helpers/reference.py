"""The computation again, by other means: diffusers' own classes, in float32, cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "l2": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
}


@torch.no_grad()
def reference_errors(
    folder: Path,
    image: Image.Image,
    texts: list[str],
    timesteps: list[int],
    noise: torch.Tensor,
    loss: str = "l2",
) -> np.ndarray:
    """Return float32 [prompts, draws]; `image` is square and as large as the model wants."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval()
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval()
    text_encoder = CLIPTextModel.from_pretrained(
        folder / "text_encoder", torch_dtype=torch.float32
    ).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None]
    latent = vae.encode(pixels.float() / 127.5 - 1).latent_dist.mean * vae.config.scaling_factor
    errors = np.empty((len(texts), len(timesteps)), np.float32)
    for p, text in enumerate(texts):
        tokens = tokenizer(
            text, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
        )
        conditioning = text_encoder(tokens.input_ids)[0]
        for k, step in enumerate(timesteps):
            t, eps = torch.tensor([step]), noise[k : k + 1]
            wanted = eps
            if scheduler.config.prediction_type == "v_prediction":
                wanted = scheduler.get_velocity(latent, eps, t)
            prediction = unet(scheduler.add_noise(latent, eps, t), t, conditioning).sample
            errors[p, k] = LOSSES[loss](prediction, wanted)
    return errors


def published_adaptive(errors: np.ndarray, samples: list[int], keep: list[int]) -> tuple[int, int]:
    """The reference implementation's elimination on a table of errors [prompts, draws].

    Returns the winning prompt and the evaluations. Written from the published algorithm's
    description: `grid[len//n//2 :: len//n][:n]`, minus what was used; for n that divide the draws.
    """
    prompts, draws = errors.shape
    evaluated: dict[int, list[float]] = {p: [] for p in range(prompts)}
    used: set[int] = set()
    remaining, cost = list(range(prompts)), 0
    for n, k in zip(samples, keep, strict=True):
        stride = draws // n
        stage = [d for d in range(draws)[stride // 2 :: stride][:n] if d not in used]
        used |= set(stage)
        for p in remaining:
            evaluated[p] += [float(errors[p, d]) for d in stage]
            cost += len(stage)
        means = {p: sum(evaluated[p]) / len(evaluated[p]) for p in remaining}
        remaining = sorted(remaining, key=lambda p: (means[p], p))[:k]
    return remaining[0], cost
