"""The declared models as their published configs have them: counted, or with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from helpers.families import gemma
from helpers.parts import clip_config, kl_config, save_clip_tokenizer, t5_tokenizer
from helpers.pipelines import ACTIVATIONS, BLOCKS, PREDICTIONS, scheduler
from safetensors.torch import save_file
from torch import nn

_SD2 = {
    **BLOCKS,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
_LAYERS = {
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "patch_size": 2,
}
_PIXART = {
    **_LAYERS,
    "sample_size": 128,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
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
_DIT = {**_LAYERS, "num_embeds_ada_norm": 1000}
_SANA = {"interpolation_scale": None, "sample_size": 32, "caption_channels": 2304}
_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}

SHARD = 500_000_000  # numbers in a file, about

# name → class, config, side of the latents
NETWORKS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "sd15": (
        diffusers.UNet2DConditionModel,
        {**BLOCKS, "sample_size": 64, "cross_attention_dim": 768},
        64,
    ),
    "sd21": (diffusers.UNet2DConditionModel, {**_SD2, "sample_size": 64}, 64),
    "sd21-768": (diffusers.UNet2DConditionModel, {**_SD2, "sample_size": 96}, 96),
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


def _clip(width: int, layers: int, heads: int, **more: int) -> dict[str, int]:
    shape = {"hidden_size": width, "intermediate_size": 4 * width}
    return {**shape, "num_hidden_layers": layers, "num_attention_heads": heads, **more}


VIT_L = _clip(768, 12, 12, projection_dim=768)
VIT_H = _clip(1024, 23, 16)  # of 24 layers: the pipelines take the output before the last
BIG_G = _clip(1280, 32, 20, projection_dim=1280)
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
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
            clip = transformers.CLIPTextConfig(vocab_size=49408, **BIG_G)
            return transformers.CLIPTextModelWithProjection(clip)  # type: ignore[no-any-return]
        if kind == "t5-xxl":
            t5 = transformers.T5Config(**T5_XXL)
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


@dataclass(frozen=True)
class Pipeline:
    """The parts of a published pipeline beside its network.

    Attributes:
        name: diffusers' class.
        encoders: shapes of its text encoders by the ending of their names: CLIP's with whether the
            pooled output is projected, `t5` or `gemma`.
        autoencoder: its config.
        scheduler: its scheduler.
    """

    name: str
    encoders: Mapping[str, tuple[Mapping[str, Any], bool] | str]
    autoencoder: Mapping[str, Any]
    scheduler: Any


def _autoencoder(channels: int = 4, **config: Any) -> Mapping[str, Any]:
    return kl_config((128, 256, 512, 512), channels, layers_per_block=2, **config)


_OF_SD = _autoencoder(scaling_factor=0.18215)
_OF_SD3 = _autoencoder(16, scaling_factor=1.5305, shift_factor=0.0609)
_OF_SANA = {  # which makes a pixel of 32 by 32, as the published one, of small widths
    "latent_channels": 32,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": (32,) * 6,
    "decoder_block_out_channels": (32,) * 6,
    "encoder_layers_per_block": (1,) * 6,
    "decoder_layers_per_block": (1,) * 6,
    "encoder_qkv_multiscales": ((),) * 6,
    "decoder_qkv_multiscales": ((),) * 6,
    "scaling_factor": 0.41407,
}
_FLOW = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)


def _sd(width: Mapping[str, Any], like: str, prediction: str) -> Pipeline:
    shape = {**width, "hidden_act": ACTIVATIONS[like]}
    return Pipeline("StableDiffusionPipeline", {"": (shape, False)}, _OF_SD, scheduler(prediction))


_SD3_PARTS = Pipeline(
    "StableDiffusion3Pipeline", {"": (VIT_L, True), "_2": (BIG_G, True), "_3": "t5"}, _OF_SD3, _FLOW
)
_FLUX = Pipeline("FluxPipeline", {"": (VIT_L, False), "_2": "t5"}, _OF_SD3, _FLOW)
_DIT_PARTS = Pipeline("DiTPipeline", {}, _OF_SD, scheduler("epsilon"))
_SANA_PARTS = Pipeline("SanaPipeline", {"": "gemma"}, _OF_SANA, _FLOW)
PIPELINES = {
    "sd15": _sd(VIT_L, "sd15", PREDICTIONS["sd15"]),
    "sd21": _sd(VIT_H, "sd21", "epsilon"),
    "sd21-768": _sd(VIT_H, "sd21", PREDICTIONS["sd21"]),
    "sdxl": Pipeline(
        "StableDiffusionXLPipeline",
        {"": (VIT_L, False), "_2": (BIG_G, True)},
        _autoencoder(scaling_factor=0.13025),
        scheduler("epsilon"),
    ),
    "dit-256": _DIT_PARTS,
    "dit-512": _DIT_PARTS,
    "sd3": _SD3_PARTS,
    "sd35-medium": _SD3_PARTS,
    "sd35-large": _SD3_PARTS,
    "flux-schnell": _FLUX,
    "flux-dev": _FLUX,
    "pixart": Pipeline("PixArtAlphaPipeline", {"": "t5"}, _OF_SD, scheduler("epsilon")),
    "pixart-sigma": Pipeline("PixArtSigmaPipeline", {"": "t5"}, _OF_SD, scheduler("epsilon")),
    "sana": _SANA_PARTS,
    "sana-600m": _SANA_PARTS,
}


def save_published(name: str, folder: Path, tensors: bool = True) -> Path:
    """Save a pipeline of the published shape, with random weights in bfloat16, or configs alone.

    Vocabularies of CLIP and Gemma are small: its tokenizers here make a token of a character.
    """
    parts = PIPELINES[name]
    made, config, _ = NETWORKS[name]
    network = "unet" if made is diffusers.UNet2DConditionModel else "transformer"
    deep = parts.autoencoder is _OF_SANA
    autoencoder: Any = diffusers.AutoencoderDC if deep else diffusers.AutoencoderKL
    _save(made, config, folder / network, tensors)
    _save(autoencoder, parts.autoencoder, folder / "vae", tensors)
    for number, shape in parts.encoders.items():
        words, encoder = folder / f"tokenizer{number}", folder / f"text_encoder{number}"
        if shape == "t5":
            t5 = transformers.T5Config(**T5_XXL)
            t5_tokenizer(t5.vocab_size).save_pretrained(words)
            _save(transformers.T5EncoderModel, t5, encoder, tensors)
        elif shape == "gemma":
            small, tokenizer = gemma()
            tokenizer.save_pretrained(words)
            wide = transformers.Gemma2Config(
                **{**small.config.to_dict(), "hidden_size": _SANA["caption_channels"]}
            )
            _save(transformers.Gemma2Model, wide, encoder, tensors)
        else:
            assert not isinstance(shape, str)
            text = clip_config(save_clip_tokenizer(words), **shape[0])
            towers = transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection
            _save(towers[shape[1]], text, encoder, tensors)
    parts.scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": parts.name}))
    return folder


def _save(made: Any, config: Any, folder: Path, tensors: bool) -> None:
    """Save a module of diffusers, whose config is a mapping, or of transformers."""
    of_diffusers = isinstance(config, Mapping)
    with torch.device("meta"):
        module = made(**config) if of_diffusers else made(config)
    (module.save_config if of_diffusers else config.save_pretrained)(folder)
    if not tensors:
        return
    stem = "diffusion_pytorch_model" if of_diffusers else "model"
    names: dict[str, str] = {}
    for number, shard in enumerate(_shards(module)):
        file = f"{stem}-{number:05}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        names.update(dict.fromkeys(shard, file))
    if number == 0:
        (folder / file).rename(folder / f"{stem}.safetensors")
    else:
        index = {"metadata": {}, "weight_map": names}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def _shards(module: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Yield a module's tensors by name, some at a time, of one block of random numbers.

    They are about as large as torch starts them, and none is exactly zero or one.
    """
    block = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    shard: dict[str, torch.Tensor] = {}
    used = 0
    for name, tensor in module.state_dict().items():
        if name == "encoder.embed_tokens.weight":  # T5's, which is tied
            continue
        if tensor.ndim > 1:
            values = block * (3 * tensor[0].numel()) ** -0.5
        else:
            values = block * 0.02 + name.endswith("weight")
        # Each tensor starts at another place of the block, so that no two are the same.
        values = values.roll(-used).to(torch.bfloat16).repeat(-(-tensor.numel() // len(block)))
        shard[name] = values[: tensor.numel()].reshape(tensor.shape).clone()
        used += tensor.numel()
        if sum(each.numel() for each in shard.values()) > SHARD:
            yield shard
            shard = {}
    if shard:
        yield shard
