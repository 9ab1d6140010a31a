"""Load a pipeline as a whole: from a folder, from a single file, and with LoRAs.

Tensors are checked as those of components that are loaded one by one. LoRAs are added afterwards.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers.loaders import single_file_utils
from torch import nn

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench_plugins.backbones._checkpoint import LOADING, check_values, first_line, header
from bench_plugins.backbones._components import (
    AUTOENCODER,
    NETWORKS,
    PIPELINE_INDEX,
    component_class,
    load_component,
)
from bench_plugins.backbones._files import check_files, pipeline_class

LDM_NETWORK = "model.diffusion_model.input_blocks.0.0.weight"  # a tensor of Stable Diffusion 1
LORA_LAYERS = ("lora_A", "lora_B", "lora_down", "lora_up", "lora.down", "lora.up")
# Parts of a pipeline in a single file → beginnings of their tensors' names; all others are the
# network's.
NETWORK, ENCODERS = "network", "text encoders"
PREFIXES = {
    AUTOENCODER: ("first_stage_model.", "vae."),
    ENCODERS: ("cond_stage_model.", "conditioner.embedders.", "text_encoders."),
}
# Tensors of a single file that no pipeline reads: the training's averages and noise levels, tables
# of positions, the scale of CLIP's logits, the last layer of Stable Diffusion 2's text encoder. A
# tied tensor counts once; CLIP's projection is not in every file.
UNUSED = re.compile(
    r"model_ema\.|(\w+_)?alphas_cumprod|betas$|posterior_|logvar$|denoiser\.sigmas$"
    r"|cond_stage_model\.model\.transformer\.resblocks\.23\."
    r"|(.+\.)?(position_ids|logit_scale|encoder\.embed_tokens\.weight|text_projection(\.weight)?)$"
)


def load_pipeline(weights: Weights, dtype: torch.dtype) -> Any:
    """Load a folder's or a file's pipeline on the CPU, with its LoRAs. The VAE is in float32.

    Raises UserError if a component lacks a tensor, or has another one or one that is not finite, or
    if diffusers cannot load the pipeline.
    """
    index = weights.read(PIPELINE_INDEX)
    pipeline_cls = pipeline_class(weights, index)
    classes = _module_classes(weights, pipeline_cls, index)
    dtypes = {name: torch.float32 if name == AUTOENCODER else dtype for name in classes}
    shapes = {} if weights.file is None else _shapes(Path(weights.file))
    in_file = {name: part for name, part in classes.items() if _is_in_file(part, shapes)}
    source: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True}
    # It checks generated images. None are generated here.
    if "safety_checker" in inspect.signature(pipeline_cls.__init__).parameters:
        source.update(safety_checker=None, requires_safety_checker=False)
    try:
        with LOADING:
            for name in classes.keys() - in_file.keys():
                source[name] = load_component(weights, name, classes[name], dtypes[name], "cpu")
            folder = str(weights.folder(""))
            if weights.file is None:
                pipe = pipeline_cls.from_pretrained(folder, **source)
            else:
                if AUTOENCODER in in_file:
                    vae = {"config": folder, "subfolder": AUTOENCODER, "local_files_only": True}
                    source[AUTOENCODER] = in_file[AUTOENCODER].from_single_file(
                        weights.file, torch_dtype=torch.float32, **vae
                    )
                pipe = pipeline_cls.from_single_file(weights.file, config=folder, **source)
    except UserError:
        raise
    except Exception as error:  # whatever the libraries raise for missing or invalid files
        raise UserError(
            f"The weights {weights.file or weights.location} cannot be loaded: {first_line(error)}."
        ) from error
    if weights.file is not None:
        modules = {name: getattr(pipe, name) for name in in_file}
        _check_file(replace(weights, location=weights.file, revision=None), modules)
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            component.eval().requires_grad_(False)
    add_loras(pipe, weights)
    return pipe


def _module_classes(
    weights: Weights, pipeline_cls: Any, index: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the classes of a pipeline's components that have tensors."""
    classes = {
        name: component_class(weights, pipeline_cls, index, name)
        for name in inspect.signature(pipeline_cls.__init__).parameters
        if name != "safety_checker" and isinstance(index.get(name), list) and index[name][0]
    }
    return {name: part for name, part in classes.items() if issubclass(part, nn.Module)}


def config_source(file: Path) -> str:
    """Return the Hub id of the pipeline whose configs and tokenizers fit a single file.

    Raises UserError if diffusers does not recognise the model in the file.
    """
    check_files(Weights(str(file), None, "", file=str(file)))
    shapes = _shapes(file)
    model_type = single_file_utils.infer_diffusers_model_type(shapes)
    if model_type == "v1" and LDM_NETWORK not in shapes:  # diffusers' default for unknown models
        raise UserError(
            f"{file} is not a model that diffusers recognises. Name a folder or Hub id with its"
            f" configs and tokenizers: --backbone FOLDER --weights {file}"
        )
    source = single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS[model_type]
    return str(source["pretrained_model_name_or_path"])


def _shapes(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file on the meta device, which diffusers' functions take."""
    return {name: torch.empty(shape, device="meta") for name, (_, shape) in header(file).items()}


def _is_in_file(component_cls: Any, shapes: Mapping[str, torch.Tensor]) -> bool:
    """Return whether diffusers reads a component from a single file, and not from the folder."""
    if not issubclass(component_cls, transformers.PreTrainedModel):
        return bool(shapes) and hasattr(component_cls, "from_single_file")
    return bool(
        single_file_utils.is_clip_model_in_single_file(component_cls, shapes)
        or single_file_utils.is_t5_in_single_file(shapes)
    )


def _check_file(weights: Weights, modules: Mapping[str, nn.Module]) -> None:
    """Raise UserError unless all tensors of a single file are in the modules, and no others.

    diffusers renames, splits and joins them, and does not say which it does not read. So numbers of
    elements are compared.
    """
    stored: Counter[str] = Counter()
    for name, tensor in _shapes(Path(weights.location)).items():
        parts = (part for part, prefixes in PREFIXES.items() if name.startswith(prefixes))
        stored[next(parts, NETWORK)] += 0 if UNUSED.match(name) else tensor.numel()
    loaded: Counter[str] = Counter()
    for component, module in modules.items():
        check_values(weights, component, module)
        part = {AUTOENCODER: AUTOENCODER, **dict.fromkeys(NETWORKS, NETWORK)}.get(
            component, ENCODERS
        )
        for name, tensor in module.state_dict().items():
            loaded[part] += 0 if UNUSED.match(name) else tensor.numel()
    for part in stored.keys() | loaded.keys():
        if stored[part] != loaded[part]:
            raise weights.error(
                part,
                f"has {stored[part]:,} values; its config describes {loaded[part]:,}",
            )


def add_loras(pipe: Any, weights: Weights) -> None:
    """Add LoRAs with their scales to a pipeline, in place. Raises UserError if one does not fit."""
    names = [f"lora_{number}" for number in range(len(weights.loras))]
    for name, lora in zip(names, weights.loras, strict=True):
        problem = ""
        try:
            file = Path(lora.path)
            # If a file is given without `weight_name`, older versions of diffusers ask the Hub.
            options: dict[str, Any] = {"weight_name": file.name} if file.is_file() else {}
            source = str(file.parent) if options else lora.path
            pipe.load_lora_weights(source, adapter_name=name, **options)
            expected = _count_lora_tensors(type(pipe).lora_state_dict(source, **options))
        except Exception as error:  # whatever diffusers and PEFT raise
            problem, expected = first_line(error), 0
        added = list(_added(pipe, name))
        if not all(torch.isfinite(tensor).all() for tensor in added):
            problem = "it contains values that are not finite"
        if problem or len(added) != expected or not added:
            problem = problem or (
                f"{expected - len(added)} of its {expected} tensors match no layer of the pipeline"
            )
            raise UserError(f"--lora {lora.path} does not fit {type(pipe).__name__}: {problem}.")
    if names:
        pipe.set_adapters(names, [lora.scale for lora in weights.loras])


def _count_lora_tensors(state: Any) -> int:
    tensors = state[0] if isinstance(state, tuple) else state
    return sum(any(layer in name for layer in LORA_LAYERS) for name in tensors)


def _added(pipe: Any, adapter: str) -> Iterator[torch.Tensor]:
    """Yield the tensors of an adapter in a pipeline's components."""
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            for name, tensor in component.named_parameters():
                if f".{adapter}." in name:
                    yield tensor
