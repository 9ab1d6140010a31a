"""A small aMUSEd with random weights, saved as its authors save theirs."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from helpers.families import clip

CODES = 32  # in the codebook of images


def amused(rows: int = 4, hidden: int = 24, layers: int = 2) -> Any:
    """Return a pipeline of `rows` × `rows` tokens, each of 4 × 4 pixels."""
    torch.manual_seed(0)
    text_encoder, tokenizer = clip(projected=True)
    width = text_encoder.config.hidden_size
    return diffusers.AmusedPipeline(
        vqvae=diffusers.VQModel(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 16),
            latent_channels=4,
            num_vq_embeddings=CODES,
            norm_num_groups=4,
            mid_block_add_attention=False,
            lookup_from_codebook=True,
        ),
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        transformer=diffusers.UVit2DModel(
            hidden_size=hidden,
            cond_embed_dim=text_encoder.config.projection_dim,
            micro_cond_encode_dim=8,
            micro_cond_embed_dim=40,
            encoder_hidden_size=width,
            vocab_size=CODES + 2,
            codebook_size=CODES,
            in_channels=hidden,
            block_out_channels=hidden,
            num_res_blocks=1,
            block_num_heads=2,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * hidden,
            sample_size=rows,
        ),
        scheduler=diffusers.AmusedScheduler(mask_token_id=CODES + 1),
    )


def save_amused(folder: Path, rows: int = 4) -> Path:
    """Save the pipeline, with every tensor random."""
    pipe = amused(rows)
    with torch.no_grad():
        for part in (pipe.vqvae, pipe.transformer, pipe.text_encoder):
            for tensor in part.parameters():
                tensor.add_(torch.randn_like(tensor) * 0.1)
    pipe.save_pretrained(folder)
    return folder
