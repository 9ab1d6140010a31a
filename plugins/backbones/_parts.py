"""Parts of a pipeline's folder: how each is built, checked and loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from operator import methodcaller
from typing import Any

import diffusers
import torch
import transformers

from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import (
    LOADING,
    ModelPart,
    diffusers_part,
    first_line,
    load,
    transformers_part,
)
from bench_plugins.backbones._configs import read_config
from bench_plugins.backbones._tokenizers import clip_tokenizer, other_tokenizer

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PIPELINE_INDEX = "model_index.json"
PART_LIBRARIES = ("diffusers", "transformers")  # beside the modules of pipelines in diffusers
NETWORKS = ("transformer", "unet")
EMBEDDINGS = "0.0"  # the leaf of a conditioning that the pipeline returns first
OLDER_CLASS = "Transformer2DModel"  # of DiT and PixArt, in files of before diffusers 0.29
# What attention was called before diffusers 0.13; the files of Stable Diffusion's VAE still do.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
POSITIONS = ("text_model.embeddings.position_ids", "embeddings.position_ids")  # 0, 1, 2 …
TIED_TENSORS = {"encoder.embed_tokens.weight": "shared.weight"}  # T5's
OTHER_TOKENIZERS = {
    "t5": ("T5TokenizerFast", "T5Tokenizer"),
    "gemma2": ("GemmaTokenizerFast", "GemmaTokenizer"),
}


def part_class(weights: Weights, kind: Any, index: Mapping[str, Any], name: str) -> Any:
    """Return the class of a part: that of the index, else that which the pipeline's class declares.

    Raises:
        UserError: the index names a class that the installed libraries do not have.
    """
    made = index.get(name)
    if isinstance(made, list) and len(made) == 2 and made[1] != OLDER_CLASS:
        library = getattr(diffusers.pipelines, str(made[0]), None)
        library = {"diffusers": diffusers, "transformers": transformers}.get(made[0], library)
        if (named := getattr(library, str(made[1]), None)) is None:
            stated = ".".join(map(str, made))
            raise weights.error(
                PIPELINE_INDEX, f"takes {name} from {stated:.100}, which is unknown"
            )
        return named
    declared = inspect.signature(kind.__init__, eval_str=True).parameters[name].annotation
    return next(iter(getattr(declared, "__args__", (declared,))))


def model_part(weights: Weights, name: str, kind: Any) -> tuple[ModelPart, Mapping[str, Any]]:
    """Return how a part with tensors is built and stored, and its config, checked.

    Raises:
        UserError: there is no config, of another class, or with a number that no model has.
    """
    if issubclass(kind, diffusers.ModelMixin):
        classes = (kind.__name__, *((OLDER_CLASS,) if name == "transformer" else ()))
        config = read_config(weights, name, "_class_name", classes)
        renamed: Any = _plain_attention if kind is diffusers.AutoencoderKL else str
        part = diffusers_part(name, kind, renamed=renamed)
        # Others have tensors of whole numbers, or some that stay in float32 whatever the dtype.
        plain = name != "vae" or kind in (diffusers.AutoencoderKL, diffusers.AutoencoderDC)
        if plain and not getattr(kind, "_keep_in_fp32_modules", None):
            return part, config
        return replace(part, library=kind), config
    if issubclass(kind, transformers.CLIPPreTrainedModel):
        model_type, made, described = "clip_text_model", kind, transformers.CLIPTextConfig
        more: dict[str, Any] = {
            "renamed": methodcaller("removeprefix", "text_model."),
            "unused": POSITIONS,
        }
    elif kind is transformers.T5EncoderModel:
        model_type, made, described = "t5", kind, transformers.T5Config
        more = {"tied": TIED_TENSORS}
    elif issubclass(kind, transformers.Gemma2PreTrainedModel):
        model_type, made, described = "gemma2", transformers.Gemma2Model, transformers.Gemma2Config
        more = {"renamed": methodcaller("removeprefix", "model."), "unused": ("lm_head.weight",)}
    else:
        part = transformers_part(name, kind, getattr(kind, "config_class", None), library=kind)
        return part, weights.read(f"{name}/config.json")
    config = read_config(weights, name, "model_type", (model_type,))
    return transformers_part(name, made, described, **more), config


def _plain_attention(name: str) -> str:
    parts = name.split(".")
    if "attentions" in parts:
        parts = [OLD_ATTENTION.get(part, part) for part in parts]
    return ".".join(parts)


def tokenizer_of(weights: Weights, name: str, kind: Any, encoder: ModelPart | None) -> Any:
    """Return a tokenizer, checked to fit its text encoder where that is CLIP, T5 or Gemma 2.

    Raises:
        UserError: it cannot be loaded, or does not fit.
    """
    if encoder is None or encoder.library is not None:
        return from_library(weights, name, kind)
    text = weights.read(f"{encoder.folder}/config.json")
    if classes := OTHER_TOKENIZERS.get(text["model_type"]):
        return other_tokenizer(weights, name, encoder.folder, classes)
    positions, size = text.get("max_position_embeddings"), text.get("vocab_size")
    return clip_tokenizer(weights, name, positions, size)


def from_library(weights: Weights, name: str, kind: Any, **more: Any) -> Any:
    """Return a part, loaded by its own class.

    Raises:
        UserError: it cannot be loaded.
    """
    source = {"subfolder": name, "revision": weights.revision}
    try:
        return kind.from_pretrained(weights.location, **source, **more)
    except Exception as error:  # whatever the libraries raise where files are missing or odd
        raise weights.error(f"{name}/", f"cannot be loaded: {first_line(error)}") from error


def load_part(weights: Weights, name: str, kind: Any, dtype: torch.dtype, device: Any) -> Any:
    """Return a part with its tensors, for inference."""
    part, config = model_part(weights, name, kind)
    if part.library is None:
        return load(weights, part, config, dtype, device)
    # Parameters made in inference mode could not take part in a backward pass.
    with LOADING, torch.inference_mode(False):
        module = from_library(weights, name, kind, torch_dtype=dtype, use_safetensors=True)
        return module.to(device).eval().requires_grad_(False)
