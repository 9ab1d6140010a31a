"""The networks of the declared models as their published configs have them, for counting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from helpers.pipelines import save_tokenizer
from safetensors.torch import save_file
from torch import nn

_PIXART = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "patch_size": 2,
    "interpolation_scale": 2,
}
_SD3 = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
}
_DIT = {
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
}
_SANA = {"interpolation_scale": None, "sample_size": 32, "caption_channels": 2304}
_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}

# name → class, config, side of the latents
NETWORKS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "sdxl": (
        diffusers.UNet2DConditionModel,
        {
            "sample_size": 128,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (320, 640, 1280),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        128,
    ),
    "dit-256": (diffusers.DiTTransformer2DModel, {**_DIT, "sample_size": 32}, 32),
    "dit-512": (diffusers.DiTTransformer2DModel, {**_DIT, "sample_size": 64}, 64),
    "sd3": (
        diffusers.SD3Transformer2DModel,
        {**_SD3, **_MEDIUM, "pos_embed_max_size": 192},
        128,
    ),
    "sd35-medium": (
        diffusers.SD3Transformer2DModel,
        {
            **_SD3,
            **_MEDIUM,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        128,
    ),
    "sd35-large": (
        diffusers.SD3Transformer2DModel,
        {
            **_SD3,
            "num_layers": 38,
            "num_attention_heads": 38,
            "caption_projection_dim": 2432,
            "pos_embed_max_size": 192,
            "qk_norm": "rms_norm",
        },
        128,
    ),
    "flux-schnell": (diffusers.FluxTransformer2DModel, {"guidance_embeds": False}, 128),
    "flux-dev": (diffusers.FluxTransformer2DModel, {"guidance_embeds": True}, 128),
    "pixart": (diffusers.PixArtTransformer2DModel, _PIXART, 128),
    "pixart-sigma": (
        diffusers.PixArtTransformer2DModel,
        {**_PIXART, "use_additional_conditions": False},
        128,
    ),
    "sana-600m": (
        diffusers.SanaTransformer2DModel,
        {
            **_SANA,
            "num_attention_heads": 36,
            "num_layers": 28,
            "num_cross_attention_heads": 16,
            "cross_attention_head_dim": 72,
            "cross_attention_dim": 1152,
        },
        32,
    ),
    "sana": (diffusers.SanaTransformer2DModel, _SANA, 32),
}


def empty_network(name: str) -> tuple[nn.Module, int]:
    """Return a model's network without memory for its tensors, and the side of its latents."""
    made, config, side = NETWORKS[name]
    with torch.device("meta"):
        network: nn.Module = made(**config).eval().requires_grad_(False)
    return network, side


def empty_encoder(kind: str) -> nn.Module:
    """Return a text encoder of the published shape without memory for its tensors."""
    with torch.device("meta"):
        if kind == "bigG":
            clip = transformers.CLIPTextConfig(
                vocab_size=49408,
                hidden_size=1280,
                intermediate_size=5120,
                num_hidden_layers=32,
                num_attention_heads=20,
                projection_dim=1280,
            )
            return transformers.CLIPTextModelWithProjection(clip)  # type: ignore[no-any-return]
        if kind == "t5-xxl":
            t5 = transformers.T5Config(
                vocab_size=32128,
                d_model=4096,
                d_ff=10240,
                d_kv=64,
                num_layers=24,
                num_heads=64,
                feed_forward_proj="gated-gelu",
            )
            return transformers.T5EncoderModel(t5)  # type: ignore[no-any-return]
        gemma = transformers.Gemma2Config(
            vocab_size=256000,
            hidden_size=2304,
            intermediate_size=9216,
            num_hidden_layers=26,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
        )
        return transformers.Gemma2Model(gemma)  # type: ignore[no-any-return]


def save_published(name: str, folder: Path) -> Path:
    """Save a pipeline of the published shape, with random weights in bfloat16.

    Vocabularies of CLIP are small, since its tokenizer here makes a token of a character.
    """
    made, config, _ = NETWORKS[name]
    pipeline = {"sdxl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline"}[name]
    _save(made, config, folder / ("unet" if name == "sdxl" else "transformer"))
    autoencoder = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4 if name == "sdxl" else 16,
        "scaling_factor": 0.13025 if name == "sdxl" else 1.5305,
    }
    _save(diffusers.AutoencoderKL, autoencoder, folder / "vae")
    for number, width, layers, heads in (("", 768, 12, 12), ("_2", 1280, 32, 20)):
        tokenizer = save_tokenizer(folder / f"tokenizer{number}")
        projected = number == "_2" or name == "sd3"
        clip = transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=width,
        )
        kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
        _save(kind, clip, folder / f"text_encoder{number}")
    if name == "sd3":
        pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
        pieces += [(chr(code), -3.0) for code in range(97, 123)]
        pieces += [(f"▁unused{number}", -20.0) for number in range(32_070)]
        tokenizer = transformers.T5TokenizerFast(vocab=pieces, extra_ids=0)
        tokenizer.save_pretrained(folder / "tokenizer_3")
        t5 = empty_encoder("t5-xxl").config
        _save(transformers.T5EncoderModel, t5, folder / "text_encoder_3")
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    else:
        diffusers.DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        ).save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return folder


def _save(made: Any, config: Any, folder: Path) -> None:
    """Save a module in shards, filled with one block of random numbers over and over."""
    with torch.device("meta"):
        module = made(**config) if isinstance(config, dict) else made(config)
    if isinstance(config, dict):  # diffusers'
        module.save_config(folder)
    else:
        config.save_pretrained(folder)
    stem = "diffusion_pytorch_model" if isinstance(config, dict) else "model"
    block = torch.randn(2**20, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    shard: dict[str, torch.Tensor] = {}
    names: dict[str, str] = {}
    number = size = 0

    def write() -> None:
        nonlocal number, size
        file = f"{stem}-{number:05}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        names.update(dict.fromkeys(shard, file))
        shard.clear()
        number, size = number + 1, 0

    for name, tensor in module.state_dict().items():
        if name == "encoder.embed_tokens.weight":  # T5's, which is tied
            continue
        fan = tensor[0].numel() if tensor.ndim > 1 else 4
        values = (block * fan**-0.5).repeat(-(-tensor.numel() // len(block)))
        shard[name] = values[: tensor.numel()].reshape(tensor.shape).clone()
        size += tensor.numel()
        if size > 5e8:
            write()
    write()
    index = {"metadata": {}, "weight_map": names}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))
