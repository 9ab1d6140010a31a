"""A LoRA of a small pipeline, with random weights that change what it predicts."""

from pathlib import Path
from typing import Any

import pytest
import torch

peft = pytest.importorskip("peft")

ATTENTION = {"unet": ["to_q", "to_v"], "text_encoder": ["q_proj", "v_proj"]}


def save_lora(pipe: Any, folder: Path, seed: int = 0, *parts: str) -> Path:
    """Save a LoRA of the attention of parts, by default of the network, and return its file."""
    torch.manual_seed(seed)
    layers = {}
    for name in parts or ("unet",):
        part, config = (
            getattr(pipe, name),
            peft.LoraConfig(r=2, target_modules=ATTENTION[name], init_lora_weights="gaussian"),
        )
        part.add_adapter(config, "new")
        for path, parameter in part.named_parameters():
            if "lora_B" in path:
                torch.nn.init.normal_(parameter, std=0.5)
        layers[f"{name}_lora_layers"] = peft.get_peft_model_state_dict(part, adapter_name="new")
        forget = part.delete_adapters if name == "unet" else part.delete_adapter  # of transformers
        forget("new")
    type(pipe).save_lora_weights(folder, **layers)
    return folder / "pytorch_lora_weights.safetensors"
