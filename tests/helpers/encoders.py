"""Small CLIP, SigLIP and DINOv2 models with random weights, saved as their authors save them."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from helpers.parts import save_clip_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
)

SMALL = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
TOWER = {**SMALL, "num_attention_heads": 3}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}
WORDS = ("a", "photo", "of", "cat", "dog", "drawing", "an", "owl", "in", "tree", "red", "square")
CLIP_COLOURS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True}


def save_clip(folder: Path) -> Path:
    """Save a CLIP whose preprocessing crops."""
    tokenizer = save_clip_tokenizer(folder)
    text = {
        **TOWER,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    _save(CLIPModel, config, folder)
    square = {"height": 32, "width": 32}
    size = {"size": {"shortest_edge": 32}, "crop_size": square, "do_center_crop": True}
    _write(folder, "preprocessor_config.json", {**STEPS, **size, **CLIP_COLOURS, "resample": 3})
    return folder


def save_siglip(folder: Path, words: int = 0) -> Path:
    """Save a SigLIP whose preprocessing squeezes, with a tokenizer of a few words.

    Args:
        folder: where.
        words: what the model knows; 0: as many as the tokenizer has.
    """
    text = _save_words(folder)
    text["vocab_size"] = words or text["vocab_size"]
    _save(SiglipModel, SiglipConfig(text_config=text, vision_config=VISION), folder)
    size = {"size": {"height": 32, "width": 32}, "resample": 2}
    _write(folder, "preprocessor_config.json", {**STEPS, **size, **HALF})
    return folder


def save_naflex(folder: Path) -> Path:
    """Save a SigLIP 2 NaFlex, which is fed patches."""
    text = _save_words(folder)
    vision = {**TOWER, "patch_size": 8, "num_patches": 16}
    config = transformers.Siglip2Config(text_config=text, vision_config=vision)
    _save(transformers.Siglip2Model, config, folder)
    size = {"patch_size": 8, "max_num_patches": 20, "resample": 2}
    _write(folder, "preprocessor_config.json", {**STEPS, **size, **HALF})
    return folder


def _save_words(folder: Path) -> dict[str, Any]:
    """Save a tokenizer of a few words; return the config of a text tower for it."""
    folder.mkdir(parents=True)
    vocabulary = {word: n for n, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "SiglipTokenizer", "pad_token": {"content": "</s>"}}
    _write(folder, "tokenizer_config.json", settings)
    text = {**TOWER, "vocab_size": len(vocabulary), "max_position_embeddings": 16}
    return text | {"projection_size": 24, "bos_token_id": 0, "eos_token_id": 1}


def save_dinov2(folder: Path) -> Path:
    """Save a DINOv2, which encodes images alone."""
    folder.mkdir(parents=True)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "mlp_ratio": 2}
    _save(Dinov2Model, Dinov2Config(**shape, image_size=32, patch_size=8), folder)
    square = {"height": 32, "width": 32}
    size = {"size": {"shortest_edge": 36}, "crop_size": square, "do_center_crop": True}
    _write(folder, "preprocessor_config.json", {**STEPS, **size, **HALF, "resample": 3})
    return folder


def _save(kind: Any, config: Any, folder: Path) -> None:
    """Save a model whose every tensor is random: a fresh one has zeros in many places."""
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.1)
    model.save_pretrained(folder)


def _write(folder: Path, name: str, content: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(content))
