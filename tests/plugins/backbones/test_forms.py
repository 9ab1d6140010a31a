"""One model in all the forms in which its weights are stored."""

from __future__ import annotations

import os
from functools import cache
from operator import attrgetter, methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.damage import (
    TEXT,
    UNET,
    VAE,
    Damage,
    Tensors,
    both,
    copy_pipeline,
    every,
    links,
    says,
    shards,
    tensors,
)
from helpers.matrix import matrix
from helpers.places import ROOT

from bench.errors import UserError
from bench.inputs.weights import Weights, resolve
from bench_plugins.backbones.families import StableDiffusion

TINY = ROOT / "plugins/bench_plugins/backbones/weights/tiny_digits"
SCHEDULER = "scheduler/scheduler_config.json"
TOKENIZER = "tokenizer/tokenizer_config.json"


def to_names_of_version_5(content: Tensors) -> None:
    for name in list(content):
        content["text_model." + name.removeprefix("text_model.")] = content.pop(name)


def as_stable_diffusion_1_stores_it(folder: Path) -> None:
    """Old names, a table of positions, no class-free values, and a scheduler that samples."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(content: Tensors) -> None:
        for name in [name for name in content if "attentions" in name]:
            new = name
            for now, then in old.items():
                new = new.replace(now, then)
            content[new] = content.pop(name)

    tensors(VAE, rename)(folder)
    tensors(TEXT, to_names_of_version_5)(folder)
    positions = {"text_model.embeddings.position_ids": torch.arange(32)[None]}
    tensors(TEXT, lambda content: content.update(positions))(folder)
    says(SCHEDULER, _class_name="PNDMScheduler", prediction_type=..., skip_prk_steps=True)(folder)
    (folder / "tokenizer/tokenizer.json").unlink()


def as_a_snapshot_of_the_hub(folder: Path) -> None:
    """Every file is a link to a blob, as in the cache that the Hub's client makes."""
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.*"))):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))


def only_half_precision(folder: Path) -> None:
    for file in (UNET, VAE, TEXT):
        path = folder / file
        path.rename(path.with_name(path.name.replace(".", ".fp16.", 1)))


SAME: dict[str, Damage] = {
    "as it is": lambda folder: None,
    "Stable Diffusion 1": as_stable_diffusion_1_stores_it,
    "a snapshot of the Hub": as_a_snapshot_of_the_hub,
    "shards": both(shards(UNET), shards(VAE), shards(TEXT)),
    "only fp16": only_half_precision,
    "stored in float64": tensors(UNET, every(torch.Tensor.double)),
    "another sampler": says(
        SCHEDULER, _class_name="EulerDiscreteScheduler", use_karras_sigmas=True
    ),
    "links inside": both(
        lambda f: (f / UNET).rename(f / "unet/real.safetensors"), links(UNET, "real.safetensors")
    ),
}


@cache
def as_shipped(dtype: str) -> StableDiffusion:
    return StableDiffusion(resolve(str(TINY)), dtype=dtype)


def assert_same(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(dict(found), dict(wanted), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "dtype"),
    matrix(
        [*((name, "float32") for name in SAME), ("only fp16", "float16"), ("shards", "float16")],
        [
            *((name, "float32") for name in SAME if name not in {"only fp16", "another sampler"}),
            ("only fp16", "float16"),
        ],
    ),
)
def test_the_same_model_in_another_form(name: str, dtype: str, tmp_path: Path) -> None:
    folder = copy_pipeline(TINY, tmp_path / "models--some--one" / "snapshots" / "abc")
    SAME[name](folder)
    found = StableDiffusion(resolve(str(folder)), dtype=dtype)
    wanted = as_shipped(dtype)
    text = ["a handwritten digit Zero, naïve"]
    assert_same(found.encode_prompts(text), wanted.encode_prompts(text))
    for part in ("network", "vae"):
        assert_same(getattr(found, part).state_dict(), getattr(wanted, part).state_dict())
    np.testing.assert_array_equal(found.levels.alpha, wanted.levels.alpha)


@pytest.mark.long
def test_the_loaders_of_the_libraries_give_the_same(pipelines: dict[str, Path]) -> None:
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    for folder in pipelines.values():
        found = StableDiffusion(resolve(str(folder)))
        for kind, part, load in (
            (CLIPTextModel, "text_encoder", methodcaller("encode_prompts", ["a"])),
            (UNet2DConditionModel, "unet", attrgetter("network")),  # the encoder leaves memory
            (AutoencoderKL, "vae", attrgetter("vae")),
        ):
            load(found)
            module, wanted = found.pipe.components[part], kind.from_pretrained(folder / part)
            assert not module.training and not any(p.requires_grad for p in module.parameters())
            assert_same(module.state_dict(), wanted.state_dict())
        scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        kept = scheduler.alphas_cumprod.numpy().astype(np.float64)
        np.testing.assert_array_equal(found.levels.alpha, np.sqrt(kept))


@pytest.mark.long
def test_a_repository_of_the_hub_in_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    commit = "a" * 40
    snapshot = tmp_path / "models--some--one" / "snapshots" / commit
    as_a_snapshot_of_the_hub(copy_pipeline(TINY, snapshot))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    weights = Weights("some/one", commit, f"some/one@{commit}")
    StableDiffusion.check_weights(weights)
    found, wanted = StableDiffusion(weights), as_shipped("float32")
    text = ["a handwritten digit Zero"]
    assert_same(found.encode_prompts(text), wanted.encode_prompts(text))
    (snapshot / UNET).unlink()
    with pytest.raises(UserError, match="some/one: unet/"):
        StableDiffusion.check_weights(weights)
