"""Load a pipeline as a whole: with the tensors of a single file, or with LoRAs."""

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from bench.errors import UserError
from bench.inputs.weights import HAND_OVER, Weights
from bench.machine.libraries.private_diffusers import default_pipeline, has_text_encoder, model_type
from bench_plugins.backbones._checkpoint import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    LOADING,
    check_values,
    first_line,
    header,
    is_finite,
    is_lora,
    load_model,
)
from bench_plugins.backbones._gate import modules_of
from bench_plugins.backbones._meta import EmptyPipeline

LDM_NETWORK = "model.diffusion_model.input_blocks.0.0.weight"  # a tensor of Stable Diffusion 1
LORA_LAYERS = ("lora_A", "lora_B", "lora_down", "lora_up", "lora.down", "lora.up")
# Tensors of a single file that no pipeline reads: the training's averages and noise levels, tables
# of positions, the scale of CLIP's logits, the last layer of Stable Diffusion 2's text encoder. A
# tied tensor counts once; CLIP's projection is not in every file.
UNUSED = re.compile(
    r"model_ema\.|(\w+_)?alphas_cumprod|(betas|logvar|scale_factor|denoiser\.sigmas)$|posterior_"
    r"|cond_stage_model\.model\.transformer\.resblocks\.23\."
    r"|(.+\.)?(position_ids|attn_mask|logit_scale|encoder\.embed_tokens\.weight|text_projection(\.weight)?)$"
)


def load_pipeline(empty: EmptyPipeline) -> Any:
    """Load all of a pipeline on the CPU: from its folder, or its single file; and add its LoRAs.

    Raises UserError if a component lacks a tensor, or has another one or one that is not finite, or
    if diffusers cannot load the pipeline.
    """
    weights, pipe = empty.weights, copy.copy(empty.pipe)
    shapes = {} if weights.file is None else _shapes(Path(weights.file))
    in_file, read_by_pipeline = [], []
    for name, kind in empty.classes.items():
        dtype = getattr(empty.pipe, name).dtype
        if not _is_in_file(kind, shapes):
            setattr(pipe, name, load_model(weights, name, kind, dtype, "cpu"))
        elif hasattr(kind, "from_single_file"):
            in_file.append(name)
            setattr(pipe, name, _from_file(weights, kind, torch_dtype=dtype, subfolder=name))
        else:
            in_file.append(name)
            read_by_pipeline.append(name)
    if read_by_pipeline:
        dtypes = {name: getattr(empty.pipe, name).dtype for name in read_by_pipeline}
        widest = max(dtypes.values(), key=lambda dtype: dtype.itemsize)
        given = {n: part for n, part in pipe.components.items() if n not in read_by_pipeline}
        more = {"requires_safety_checker": False} if "safety_checker" in given else {}
        whole = _from_file(weights, type(pipe), torch_dtype=widest, **given, **more)
        for name, dtype in dtypes.items():
            setattr(pipe, name, getattr(whole, name).to(dtype))
    modules = {name: getattr(pipe, name).eval().requires_grad_(False) for name in in_file}
    if weights.file is not None:
        _check_file(replace(weights, location=weights.file, revision=None), modules)
    add_loras(pipe, weights)
    return pipe


def _from_file(weights: Weights, kind: Any, **options: Any) -> Any:
    """Return a pipeline or, from a `subfolder`, a component with the tensors of a single file."""
    source: dict[str, Any] = {"config": str(weights.folder("")), "local_files_only": True}
    try:
        with LOADING:
            return kind.from_single_file(weights.file, **source, **options)
    except Exception as error:  # whatever the libraries raise for missing or invalid files
        raise UserError(
            f"The weights {weights.file} cannot be loaded: {first_line(error)}."
        ) from error


def check_files(weights: Weights) -> None:
    """Raise UserError if the header of a LoRA or single file is unusable, or peft is missing."""
    for lora in weights.loras:
        if find_spec("peft") is None:
            raise UserError(
                "--lora needs the extra `lora`: pip install 'diffusion-classifier-bench[lora]'."
            )
        if not is_lora(Path(lora.path)):
            raise UserError(f"--lora {lora.path}: the file does not contain a LoRA.")
    if weights.file is None:
        return
    if is_lora(path := Path(weights.file)):
        raise lora_alone(path)
    tensors = header(path)
    if not tensors:
        raise UserError(f"{path} is damaged, or contains no tensors.")
    dtypes = {dtype for dtype, _ in tensors.values()}
    if quantised := sorted(dtypes - {*FLOAT_DTYPES, *INDEX_DTYPES}):
        raise UserError(
            f"{path} contains tensors of dtype {quantised[0]}: the model is quantised; {HAND_OVER}."
        )


def lora_alone(path: Path) -> UserError:
    """Return an error about a LoRA in place of a model."""
    return UserError(
        f"{path} is a LoRA, not a whole model. Add it to the pipeline that it was trained for:"
        f" --backbone PIPELINE --lora {path}"
    )


def config_source(file: Path) -> str:
    """Return the Hub id of the pipeline whose configs and tokenizers fit a single file.

    Raises UserError if diffusers does not recognise the model in the file.
    """
    check_files(Weights(str(file), None, "", file=str(file)))
    shapes = _shapes(file)
    kind = model_type(shapes)
    if kind == "v1" and LDM_NETWORK not in shapes:  # diffusers' default for unknown models
        raise UserError(
            f"{file} is not a model that diffusers recognises. Name a folder or Hub id with its"
            f" configs and tokenizers: --backbone FOLDER --weights {file}"
        )
    return default_pipeline(kind)


def _shapes(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file on the meta device, which diffusers' functions take."""
    return {name: torch.empty(shape, device="meta") for name, (_, shape) in header(file).items()}


def _is_in_file(component_cls: Any, shapes: Mapping[str, torch.Tensor]) -> bool:
    """Return whether diffusers reads a component from a single file, and not from the folder."""
    if not issubclass(component_cls, transformers.PreTrainedModel):
        return bool(shapes) and hasattr(component_cls, "from_single_file")
    return has_text_encoder(component_cls, shapes)


def _check_file(weights: Weights, modules: Mapping[str, nn.Module]) -> None:
    """Raise UserError unless all tensors of a single file are in the modules, and no others.

    diffusers renames, splits and joins them, and does not say which it does not read. So numbers of
    elements are compared.
    """
    for component, module in modules.items():
        check_values(weights, component, module)
    loaded = sum(_values(module.state_dict()) for module in modules.values())
    if (stored := _values(_shapes(Path(weights.location)))) != loaded:
        raise weights.error(
            "the file",
            f"has {stored:,} values; the configs of {', '.join(modules)} describe {loaded:,}",
        )


def _values(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the number of values in the tensors that a pipeline reads."""
    return sum(t.numel() for name, t in tensors.items() if not UNUSED.match(name))


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
        added: list[torch.Tensor] = []
        for component in modules_of(pipe).values():
            component.eval()  # a LoRA may come with dropout
            added += [part for path, part in component.named_parameters() if f".{name}." in path]
        if not all(map(is_finite, added)):
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
