"""A small pipeline in memory, what identifies it and what it computes, and how people alter it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from helpers.families import save
from helpers.loras import save_lora

from bench_plugins.backbones._weights.twin import AlteredError
from bench_plugins.backbones.pipeline import PipelineDenoiser
from bench_plugins.backbones.pipeline_live import LivePipeline

REFUSED = "refused"


LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small SDXL, which tests copy."""
    folder = tmp_path_factory.mktemp("pipelines") / "small-xl"
    save("sdxl", folder)
    loaded = diffusers.DiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture
def pipe(original: Any) -> Any:
    return copy.deepcopy(original)


@pytest.fixture(scope="session")
def lora(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lora(copy.deepcopy(original), tmp_path_factory.mktemp("loras"))


def identity(pipe: Any, **chosen: Any) -> str:
    """Return the fingerprint of a pipeline, or that it has none."""
    try:
        return LivePipeline(pipe, **chosen).content().fingerprint
    except AlteredError:
        return REFUSED


def numbers(pipe: Any) -> list[torch.Tensor]:
    """Return what is computed of an image and a text: latent, conditioning, prediction."""
    backbone = PipelineDenoiser(pipe)
    image = torch.linspace(-1, 1, 3 * backbone.resolution**2)
    latent = backbone.encode_images(image.view(1, 3, backbone.resolution, -1))
    texts: Any = backbone.encode_prompts(["a fir tree"])
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return [latent, *texts.values(), backbone.denoise(noise, torch.tensor([300.0]), texts)]


def differ(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(some) != len(others) or any(
        a.shape != b.shape or not torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5)
        for a, b in zip(some, others, strict=True)
    )


@pytest.fixture(scope="session")
def plain(original: Any) -> tuple[str, list[torch.Tensor]]:
    return identity(original), numbers(original)


def doubled(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **keywords: Any) -> Any:
        result = method(*arguments, **keywords)
        if isinstance(result, torch.Tensor):
            return 2 * result
        first, *others = result if isinstance(result, tuple) else result.to_tuple()
        return type(result)(2 * first) if hasattr(result, "to_tuple") else (2 * first, *others)

    return call


def subclass(owner: Any, name: str) -> None:
    """Give an object a class of the same name with one method that doubles."""
    own = type(owner)
    method = doubled(getattr(own, name))
    owner.__class__ = type(own.__name__, (own,), {name: method, "__module__": own.__module__})


class Doubling(AttnProcessor2_0):  # type: ignore[misc]  # Any to mypy
    """Attention of the user's own."""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return 2 * super().__call__(*arguments, **keywords)


def block(pipe: Any) -> Any:
    return pipe.unet.mid_block.attentions[0].transformer_blocks[0]


def with_adapters(pipe: Any, lora: Path, *names: str) -> Any:
    for name in names:
        pipe.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name=name)
    return [module for module in pipe.unet.modules() if hasattr(module, "lora_A")]


def other_scheduler(pipe: Any, name: str = "DDIMScheduler", **config: Any) -> None:
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **config)
