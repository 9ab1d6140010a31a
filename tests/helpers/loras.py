"""A LoRA of a small pipeline, with random weights that change what it predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch


def save_lora(pipe: Any, folder: Path, seed: int = 0) -> Path:
    """Save a LoRA of the network's attention as diffusers does, and return its file."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")
    pipe.unet.add_adapter(config)
    for name, parameter in pipe.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    layers = peft.get_peft_model_state_dict(pipe.unet)
    type(pipe).save_lora_weights(folder, unet_lora_layers=layers)
    pipe.unet.delete_adapters("default")
    return folder / "pytorch_lora_weights.safetensors"
