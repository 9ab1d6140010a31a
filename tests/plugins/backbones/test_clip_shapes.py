"""The published shapes of CLIP and SigLIP: their sizes, and their costs as the page states them."""

import re
from typing import Any

import pytest
import torch
import transformers
from helpers.matrix import matrix
from helpers.places import ROOT
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.discovery.loading import load_plugins


def sizes(hidden: int, intermediate: int, layers: int, heads: int, **more: int) -> dict[str, int]:
    """Return the sizes of a transformer as its config names them."""
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **more,
    }


_SO400M = sizes(1152, 4304, 27, 16)
# The published shapes of text and image towers, and the width of a projection; what is not said is
# the default of transformers' class.
SHAPES: dict[str, Any] = {
    "clip-b32": ({}, {}, 512),
    "clip-b16": ({}, {"patch_size": 16}, 512),
    "clip-l14": (sizes(768, 3072, 12, 12), sizes(1024, 4096, 24, 16, patch_size=14), 768),
    "openclip-h14": (sizes(1024, 4096, 24, 16), sizes(1280, 5120, 32, 16, patch_size=14), 1024),
    "siglip-b16": ({}, {}, None),
    "siglip-so400m": (_SO400M, {**_SO400M, "image_size": 384, "patch_size": 14}, None),
    "siglip2-b16": ({"vocab_size": 256_000}, {}, None),
    "siglip2-b16-naflex": ({"vocab_size": 256_000}, {}, None),
    "siglip2-so400m-naflex": ({"vocab_size": 256_000, **_SO400M}, _SO400M, None),
}


def published(name: str) -> Any:
    """Return a model of the published shape, on the meta device."""
    text, vision, projection = SHAPES[name]
    with torch.device("meta"):
        if "naflex" in name:
            shape = transformers.Siglip2Config(text_config=text, vision_config=vision)
            model: Any = transformers.Siglip2Model(shape)
        elif projection is None:
            shape = transformers.SiglipConfig(text_config=text, vision_config=vision)
            model = transformers.SiglipModel(shape)
        else:
            shape = transformers.CLIPConfig(
                text_config=text, vision_config=vision, projection_dim=projection
            )
            model = transformers.CLIPModel(shape)
    return model


PAGE = re.findall(
    r"^\| `([a-z0-9-]+)` \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|$",
    (ROOT / "docs/classifiers.md").read_text(),
    re.M,
)


def test_the_page_says_what_models_cost() -> None:
    assert len(PAGE) == 6 and {name for name, *_ in PAGE} <= set(SHAPES)


@pytest.mark.parametrize("name", matrix([name for name, *_ in PAGE], ["clip-b16", "siglip-b16"]))
def test_costs_on_the_page_are_those_of_the_published_shapes(name: str) -> None:
    row = next(row for row in PAGE if row[0] == name)
    model = published(name)
    side, tokens = model.config.vision_config.image_size, 77 if "clip" in name else 64
    with torch.device("meta"):
        inputs = {
            "vision_model": {"pixel_values": torch.zeros(1, 3, side, side)},
            "text_model": {"input_ids": torch.zeros(1, tokens, dtype=torch.int64)},
        }
    counts = []
    for tower, given in inputs.items():
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            getattr(model, tower)(**given)
        counts.append(counter.get_total_flops() / 1e9)
    wanted = [*(f"{count:.1f}" for count in counts), f"{counts[0] / 804:.2f}"]
    assert list(row[1:]) == wanted


@pytest.mark.parametrize("name", list(SHAPES))
def test_declared_sizes_are_those_of_the_published_shapes(name: str) -> None:
    model = published(name)
    size = sum(parameter.numel() for parameter in model.parameters())
    spec = load_plugins().backbones.get(name)
    assert spec.size == pytest.approx(size, rel=5e-3)
    assert spec.licence and spec.exposure and spec.weights and spec.trained_on is None
