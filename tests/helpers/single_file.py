"""A Stable Diffusion pipeline as one file, in the layout of the original implementation."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.resnets.1": "middle_block.2",
}
VAE = {"conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out"}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def save_single_file(pipe: Any, file: Path) -> Path:
    """Save UNet, VAE and text encoder of a pipeline with one CLIP encoder in one file."""
    tensors: dict[str, torch.Tensor] = {}
    blocks, layers = len(pipe.unet.config.block_out_channels), pipe.unet.config.layers_per_block
    names = {**UNET, **_unet_blocks(blocks, layers)}
    for name, tensor in pipe.unet.state_dict().items():
        tensors[f"model.diffusion_model.{_renamed(name, names)}"] = tensor
    depth = len(pipe.vae.config.block_out_channels)
    for name, tensor in pipe.vae.state_dict().items():
        new = _vae_name(name, depth)
        if ".attn_1." in new and tensor.ndim == 2:
            tensor = tensor[..., None, None]
        tensors[f"first_stage_model.{new}"] = tensor
    for name, tensor in pipe.text_encoder.state_dict().items():
        name = f"text_model.{name.removeprefix('text_model.')}"
        tensors[f"cond_stage_model.transformer.{name}"] = tensor
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return file


def _unet_blocks(blocks: int, layers: int) -> dict[str, str]:
    names, step = {}, layers + 1
    for i in range(blocks):
        for j in range(layers):
            names[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{step * i + j + 1}.0"
            names[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{step * i + j + 1}.1"
        names[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{step * (i + 1)}.0.op"
        for j in range(step):
            names[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{step * i + j}.0"
            names[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{step * i + j}.1"
        last = f"output_blocks.{step * i + layers}.{1 if i == 0 else 2}"
        names[f"up_blocks.{i}.upsamplers.0"] = last
    return names


def _renamed(name: str, names: dict[str, str]) -> str:
    old = max((old for old in names if name.startswith(f"{old}.")), key=len)
    rest = name[len(old) + 1 :]
    if "resnets" in old:
        part = next(part for part in RESNET if rest.startswith(f"{part}."))
        rest = RESNET[part] + rest[len(part) :]
    return f"{names[old]}.{rest}"


def _vae_name(name: str, depth: int) -> str:
    for i in range(depth):
        for side, other in (("down", i), ("up", depth - 1 - i)):
            block = f"{side}_blocks.{i}."
            name = name.replace(f"{block}resnets.", f"{side}.{other}.block.")
            name = name.replace(f"{block}{side}samplers.0.", f"{side}.{other}.{side}sample.")
    for i in range(2):
        name = name.replace(f"mid_block.resnets.{i}.", f"mid.block_{i + 1}.")
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0.", "mid.attn_1.")
        for new, old in VAE_ATTENTION.items():
            name = name.replace(f"attn_1.{new}.", f"attn_1.{old}.")
    for new, old in VAE.items():
        name = name.replace(new, old)
    return name
