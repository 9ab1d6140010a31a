"""Small Stable-Diffusion-shaped pipelines with random weights, saved in diffusers' layout.

Two variants keep every structural trait of their big namesakes: `sd15` (a fixed number of heads,
convolutional projections, epsilon) and `sd21` (heads of a fixed width, linear projections,
v-prediction); both with 77 tokens and a text width that the UNet's cross-attention takes.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from helpers.damage import TINY
from helpers.parts import clip_config, kl_config, save_clip_tokenizer
from transformers import CLIPTextModel

BLOCKS: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
_SMALL = {
    **BLOCKS,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 48,
    "norm_num_groups": 8,
}
UNETS: dict[str, dict[str, Any]] = {
    # What diffusers calls attention_head_dim is the number of heads here: 8 in SD 1.5, and one
    # number a block, the width over 64, in SD 2.1.
    "sd15": {**_SMALL, "attention_head_dim": 8, "use_linear_projection": False},
    "sd21": {**_SMALL, "attention_head_dim": [2, 4], "use_linear_projection": True},
}
ACTIVATIONS = {"sd15": "quick_gelu", "sd21": "gelu"}
PREDICTIONS = {"sd15": "epsilon", "sd21": "v_prediction"}


def save_pipeline(folder: Path, kind: str = "sd15") -> Path:
    """Save a small Stable Diffusion with seeded random weights."""
    torch.manual_seed(0)
    UNet2DConditionModel(**UNETS[kind]).save_pretrained(folder / "unet")
    vae = kl_config((8, 16), norm_num_groups=4, sample_size=16, scaling_factor=0.18215)
    AutoencoderKL(**vae).save_pretrained(folder / "vae")
    text = clip_config(
        save_clip_tokenizer(folder / "tokenizer"),
        hidden_act=ACTIVATIONS[kind],
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    scheduler(PREDICTIONS[kind]).save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    index |= {"scheduler": ["diffusers", "DDPMScheduler"], "safety_checker": [None, None]}
    index |= {"text_encoder": ["transformers", "CLIPTextModel"], "feature_extractor": [None, None]}
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"], "requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def scheduler(prediction_type: str) -> DDPMScheduler:
    """Return the scheduler of Stable Diffusion."""
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=prediction_type,
    )


def altered(folder: Path, part: str, changes: Mapping[str, Any]) -> Path:
    """Return a copy of tiny-digits with changes in the configuration of a part."""
    shutil.copytree(TINY, folder)
    (file,) = (folder / part).glob("*config.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder
