"""SELF-BENCH's classifier (arXiv 2505.17955), written from the description of its code.

Un-squared norm over the latent; eps for Stable Diffusion on levels 32, 65 … 989, velocity for SD 3
on even indices of its scheduler's shifted table; a sample of the latents' posterior; images
squashed to the resolution, noise drawn anew for each image.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers import UNet2DConditionModel as UNet
from helpers.flows import SHIFT, STEPS, SmallFlow
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

import bench as toolkit
from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.inputs.draws import generate_noise
from bench.store.folder import read_records

SETTINGS: dict[str, Any] = {
    "loss": "norm",
    "latent": "sample",
    "fit": "squash",
    "noise_per": "image",
}
LEVELS = torch.arange(32, 990, 33)  # 30 of them
SEED, SIDE = 3, 16

Two = tuple[torch.Tensor, torch.Tensor]
Posterior = Callable[[torch.Tensor], Two]  # of pixels: mean and deviation of the latent
Pairs = Callable[[torch.Tensor, torch.Tensor, str], Two]  # of latent, noise, prompt: answer, truth


def noise_of(k: int, name: str) -> torch.Tensor:
    return torch.from_numpy(generate_noise(SEED, k, (4, 8, 8), name))


@torch.no_grad()
def self_bench(
    image: Image.Image, name: str, texts: list[str], posterior: Posterior, pairs: Pairs
) -> list[float]:
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
    mean, deviation = posterior(torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None])
    x_0 = mean + deviation * noise_of(2**64 - 1, name)
    eps, scores = torch.stack([noise_of(k, name) for k in range(len(LEVELS))]), []
    for text in texts:
        answer, truth = pairs(x_0, eps, text)
        norms = (answer.double() - truth.double()).square().sum(dim=(1, 2, 3)).sqrt()
        scores.append(float(norms.mean()))
    return scores


def of_stable_diffusion(folder: Path) -> tuple[Posterior, Pairs]:
    unet, vae = UNet.from_pretrained(folder / "unet"), AutoencoderKL.from_pretrained(folder / "vae")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")

    def posterior(pixels: torch.Tensor) -> Two:
        found, scale = vae.encode(pixels).latent_dist, vae.config.scaling_factor
        return found.mean * scale, found.std * scale

    def pairs(x_0: torch.Tensor, eps: torch.Tensor, text: str) -> Two:
        ids = tokenizer(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
        conditioning = encoder(ids)[0].expand(len(eps), -1, -1)
        x_t = scheduler.add_noise(x_0, eps, LEVELS)
        return unet(x_t, LEVELS, conditioning).sample, eps

    return posterior, pairs


def of_a_flow() -> tuple[Posterior, Pairs]:
    model = SmallFlow(None, device="cpu", dtype="float32")
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=STEPS, shift=SHIFT)
    at = STEPS - 1 - LEVELS  # diffusers' table falls
    sigma, time = scheduler.sigmas[at][:, None, None, None], scheduler.timesteps[at]

    def posterior(pixels: torch.Tensor) -> Two:
        mean, log_variance = model.encoder(pixels).chunk(2, dim=1)
        return mean, (log_variance / 2).exp()

    def pairs(x_0: torch.Tensor, eps: torch.Tensor, text: str) -> Two:
        conditioning = model.encode_prompts([text]).expand(len(eps), -1)
        return model.denoise((1 - sigma) * x_0 + sigma * eps, time, conditioning), eps - x_0

    return posterior, pairs


@pytest.mark.long
@pytest.mark.parametrize("kind", ["stable diffusion", "flow"])
def test_its_classifier_is_ours_under_the_settings_that_name_it(
    kind: str, pipelines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, pictures = np.random.default_rng(0), {}
    for name in ("cat/1.png", "dog/2.png"):
        pixels = generator.integers(0, 256, (30, 47, 3), np.uint8)
        file = tmp_path / "data" / name
        file.parent.mkdir(parents=True)
        pictures[name] = Image.fromarray(pixels)
        pictures[name].save(file)
    if kind == "flow":
        spec = BackboneSpec(name="small-flow", target="helpers.flows:SmallFlow", summary="")
        monkeypatch.setitem(load_plugins().backbones._specs, spec.name, spec)
    by_hand = of_a_flow() if kind == "flow" else of_stable_diffusion(pipelines["sd15"])
    run = toolkit.run(
        str(tmp_path / "data"),
        backbone="small-flow" if kind == "flow" else str(pipelines["sd15"]),
        strategy="full",
        params={"draws": len(LEVELS)},
        levels=",".join(map(str, LEVELS.tolist())),
        seed=SEED,
        batch_size=16,
        results=str(tmp_path / "results"),
        **SETTINGS,
    )
    records = read_records(Path(run["results_dir"]))
    assert records.keys() == pictures.keys()
    for name, record in records.items():
        texts = ["a photo of a cat", "a photo of a dog"]
        wanted = self_bench(pictures[name], name, texts, *by_hand)
        scores = {place: score for place, score, _ in record["top"]}
        np.testing.assert_allclose([scores[0], scores[1]], wanted, rtol=1e-5)
