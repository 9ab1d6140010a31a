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


def save_pipeline(folder: Path, kind: str, sample_size: int = 8, width: int = 32) -> Path:
    """Save a pipeline with seeded random weights."""
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=4,
        out_channels=4,
        block_out_channels=(width, width * 2, width * 2, width * 2),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        cross_attention_dim=48,
        norm_num_groups=8,
        **UNETS[kind],
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=sample_size * 2,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")
    DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="epsilon" if kind == "sd15" else "v_prediction",
    ).save_pretrained(folder / "scheduler")
    tokenizer = save_tokenizer(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=3,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **TEXTS[kind],
        )
    ).save_pretrained(folder / "text_encoder")
    return folder


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
