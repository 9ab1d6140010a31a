"""Small Stable-Diffusion-shaped pipelines with random weights, saved in diffusers' layout.

Two variants keep every structural trait of their big namesakes: `sd15` (a fixed number of heads,
convolutional projections, epsilon) and `sd21` (heads of a fixed width, linear projections,
v-prediction); both with 77 tokens and a text width that the UNet's cross-attention takes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

UNETS: dict[str, dict[str, Any]] = {
    # What diffusers calls attention_head_dim is the number of heads here: 8 in SD 1.5, and one
    # number a block, the width over 64, in SD 2.1.
    "sd15": {"attention_head_dim": 8, "use_linear_projection": False},
    "sd21": {"attention_head_dim": [2, 4, 4, 4], "use_linear_projection": True},
}
TEXTS: dict[str, dict[str, Any]] = {
    "sd15": {"hidden_act": "quick_gelu"},
    "sd21": {"hidden_act": "gelu"},
}
SMALL: dict[str, Any] = {
    "unet": {
        "sample_size": 8,
        "block_out_channels": (32, 64, 64, 64),
        "layers_per_block": 1,
        "cross_attention_dim": 48,
        "norm_num_groups": 8,
    },
    "vae": {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "sample_size": 16,
    },
    "text": {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
    },
}
_REAL_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
# The published configs of Stable Diffusion 1.5 and of 2.1 at 768 pixels.
REAL: dict[str, dict[str, Any]] = {
    "sd15": {
        "unet": {"sample_size": 64, "cross_attention_dim": 768},
        "vae": _REAL_VAE,
        "text": {
            "vocab_size": 49408,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
    },
    "sd21": {
        "unet": {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
        },
        "vae": {**_REAL_VAE, "sample_size": 768},
        "text": {
            "vocab_size": 49408,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
        },
    },
}


def save_pipeline(folder: Path, kind: str, real: bool = False) -> Path:
    """Save a pipeline with seeded random weights, small or of the published shape."""
    shape = REAL[kind] if real else SMALL
    torch.manual_seed(0)
    unet = unet_config(kind, shape)
    if real:
        torch.set_default_dtype(torch.float16)  # half the disk; values are loaded as float32
    try:
        UNet2DConditionModel(**unet).save_pretrained(folder / "unet")
        AutoencoderKL(latent_channels=4, scaling_factor=0.18215, **shape["vae"]).save_pretrained(
            folder / "vae"
        )
        tokenizer = save_tokenizer(folder / "tokenizer")
        text = {
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 77,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            **TEXTS[kind],
            **shape["text"],
        }
        CLIPTextModel(CLIPTextConfig(**text)).save_pretrained(folder / "text_encoder")
    finally:
        torch.set_default_dtype(torch.float32)
    DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="epsilon" if kind == "sd15" else "v_prediction",
    ).save_pretrained(folder / "scheduler")
    return folder


def unet_config(kind: str, shape: dict[str, Any]) -> dict[str, Any]:
    """Return the UNet's config, small or of the published shape."""
    return {
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        **UNETS[kind],
        **shape["unet"],
    }


def save_tokenizer(folder: Path) -> CLIPTokenizer:
    """Save a byte-level tokenizer without merges: one token a character."""
    folder.mkdir(parents=True)
    characters = [chr(code) for code in range(33, 127)]
    words = characters + [f"{c}</w>" for c in characters] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer
