"""Build, check and load the components of a pipeline's folder: networks, encoders, tokenizers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from operator import methodcaller
from typing import Any

import diffusers
import torch
import transformers

from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import (
    LOADING,
    Component,
    check_names,
    check_values,
    diffusers_component,
    first_line,
    load,
    stored_tensors,
    transformers_component,
)
from bench_plugins.backbones._configs import check_not_quantised, read_config
from bench_plugins.backbones._tokenizers import clip_tokenizer, other_tokenizer

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PIPELINE_INDEX = "model_index.json"
# Libraries named by an index, apart from pipeline modules of diffusers.
COMPONENT_LIBRARIES = ("diffusers", "transformers")
AUTOENCODER = "vae"
NETWORKS = ("transformer", "unet")  # names of the denoising network in a pipeline
EMBEDDINGS = "0.0"  # leaf of a conditioning: the first value that the pipeline returns
OLDER_CLASS = "Transformer2DModel"  # class of DiT and PixArt in files made before diffusers 0.29
# Names in attention layers before diffusers 0.13. The files of Stable Diffusion's VAE still have
# them.
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
POSITIONS = ("text_model.embeddings.position_ids", "embeddings.position_ids")  # 0, 1, 2 …
LANGUAGE_HEAD = "lm_head.weight"  # of a language model whose embeddings are used
TIED_TENSORS = {"encoder.embed_tokens.weight": "shared.weight"}  # T5's
OTHER_TOKENIZERS = {
    "t5": ("T5TokenizerFast", "T5Tokenizer"),
    "gemma2": ("GemmaTokenizerFast", "GemmaTokenizer"),
}


def component_class(
    weights: Weights, pipeline_cls: Any, index: Mapping[str, Any], name: str
) -> Any:
    """Return the class of a component: the index's, or else that in the constructor's annotation.

    Raises UserError if the index names a class that the installed libraries do not have.
    """
    entry = index.get(name)
    if isinstance(entry, list) and len(entry) == 2 and entry[1] != OLDER_CLASS:
        library = getattr(diffusers.pipelines, str(entry[0]), None)
        library = {"diffusers": diffusers, "transformers": transformers}.get(entry[0], library)
        if (component := getattr(library, str(entry[1]), None)) is None:
            qualified = ".".join(map(str, entry))
            raise weights.error(
                PIPELINE_INDEX,
                f"has {name} of class {qualified:.100}, which the installed libraries do not have",
            )
        return component
    annotation = inspect.signature(pipeline_cls.__init__, eval_str=True).parameters[name].annotation
    return next(iter(getattr(annotation, "__args__", (annotation,))))


def component_of(
    weights: Weights, name: str, component_cls: Any
) -> tuple[Component, Mapping[str, Any]]:
    """Return the description of a component with tensors, and its validated config.

    Raises UserError if the config is missing, of another class, or has an implausible number.
    """
    if issubclass(component_cls, diffusers.ModelMixin):
        classes = (component_cls.__name__, *((OLDER_CLASS,) if name == "transformer" else ()))
        config = read_config(weights, name, "_class_name", classes)
        renamed: Any = _current_attention if component_cls is diffusers.AutoencoderKL else str
        component = diffusers_component(name, component_cls, renamed=renamed)
        # Other classes have integer tensors, or tensors that stay in float32 with any dtype.
        is_plain = name != "vae" or component_cls in (
            diffusers.AutoencoderKL,
            diffusers.AutoencoderDC,
        )
        if is_plain and not getattr(component_cls, "_keep_in_fp32_modules", None):
            return component, config
        return library_component(name, component_cls), config
    if component_cls in (transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection):
        model_type, model = "clip_text_model", component_cls
        config_class: Any = transformers.CLIPTextConfig
        more: dict[str, Any] = {
            "renamed": methodcaller("removeprefix", "text_model."),
            "unused": POSITIONS,
        }
    elif component_cls is transformers.T5EncoderModel:
        model_type, model = "t5", component_cls
        config_class = transformers.T5Config
        more = {"tied": TIED_TENSORS}
    elif issubclass(component_cls, transformers.Gemma2PreTrainedModel):
        model_type, model = "gemma2", transformers.Gemma2Model
        config_class = transformers.Gemma2Config
        more = {"renamed": methodcaller("removeprefix", "model."), "unused": (LANGUAGE_HEAD,)}
    else:
        return library_component(name, component_cls), weights.read(f"{name}/config.json")
    config = read_config(weights, name, "model_type", (model_type,))
    return transformers_component(name, model, config_class, **more), config


def _current_attention(name: str) -> str:
    words = name.split(".")
    if "attentions" in words:
        words = [OLD_ATTENTION.get(word, word) for word in words]
    return ".".join(words)


def tokenizer_of(weights: Weights, name: str, tokenizer_cls: Any, encoder: Component | None) -> Any:
    """Return a tokenizer. That of CLIP, T5 or Gemma 2 is checked against its text encoder.

    `encoder` may be None. Raises UserError if the tokenizer cannot be loaded or does not fit.
    """
    if encoder is None or encoder.library is not None:
        return from_library(weights, name, tokenizer_cls)
    text = weights.read(f"{encoder.folder}/config.json")
    if classes := OTHER_TOKENIZERS.get(text["model_type"]):
        return other_tokenizer(weights, name, encoder.folder, classes)
    positions, size = text.get("max_position_embeddings"), text.get("vocab_size")
    return clip_tokenizer(weights, name, positions, size)


def from_library(weights: Weights, name: str, component_cls: Any, **more: Any) -> Any:
    """Return a component loaded with `from_pretrained`. Raises UserError if that fails."""
    try:
        return component_cls.from_pretrained(weights.folder(name), local_files_only=True, **more)
    except Exception as error:  # whatever the libraries raise for missing or invalid files
        raise weights.error(f"{name}/", f"cannot be loaded: {first_line(error)}") from error


def library_component(name: str, component_cls: Any) -> Component:
    """Describe a component that its own library loads."""
    if issubclass(component_cls, diffusers.ModelMixin):
        return diffusers_component(name, component_cls, library=component_cls)
    config_class = getattr(component_cls, "config_class", None)
    return transformers_component(name, component_cls, config_class, library=component_cls)


def load_component(
    weights: Weights, name: str, component_cls: Any, dtype: torch.dtype, device: Any
) -> Any:
    """Return a component with its weights, for inference. Raises UserError if they are invalid."""
    component, config = component_of(weights, name, component_cls)
    # T5's library keeps some of its layers in float32.
    is_mixed = dtype == torch.float16 and getattr(component_cls, "_keep_in_fp32_modules", None)
    if component.library is None and not is_mixed:
        return load(weights, component, config, dtype, device)
    return load_with_library(weights, name, component_cls, dtype).to(device)


def load_with_library(weights: Weights, name: str, component_cls: Any, dtype: torch.dtype) -> Any:
    """Return a component loaded by its library, for inference. Raises UserError as `load` does.

    What the library ignores by its own patterns, such as T5's decoder, may be left over.
    """
    component = library_component(name, component_cls)
    variant, _ = stored_tensors(weights, component, dtype)
    check_not_quantised(weights, f"{name}/config.json", weights.read(f"{name}/config.json"))
    options: dict[str, Any] = {"use_safetensors": True, "variant": variant}
    if issubclass(component_cls, transformers.PreTrainedModel):
        # Its error does not name a misshapen tensor. Its report does.
        options["ignore_mismatched_sizes"] = True
    # Parameters created in inference mode could not be used in a backward pass.
    with LOADING, torch.inference_mode(False):
        module, info = from_library(
            weights, name, component_cls, torch_dtype=dtype, output_loading_info=True, **options
        )
    for tensor, shape, expected in info["mismatched_keys"]:
        raise weights.error(
            f"{name}/",
            f"contains {tensor!r} of shape {list(shape)}; its config requires {list(expected)}",
        )
    unused = (*POSITIONS, LANGUAGE_HEAD)
    left = [tensor for tensor in info["unexpected_keys"] if not tensor.endswith(unused)]
    check_names(weights, component, info["missing_keys"], left)
    check_values(weights, name, module)
    return module.eval().requires_grad_(False)
