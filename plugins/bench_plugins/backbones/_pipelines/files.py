"""Load a pipeline as a whole: with the tensors of a single file, or with LoRAs."""

import copy
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.errors import UserError
from bench.inputs.weights import Weights
from bench.machine.libraries.private_diffusers import default_pipeline, has_text_encoder, model_type
from bench_plugins.backbones._pipelines.gate import modules_of
from bench_plugins.backbones._pipelines.meta import EmptyPipeline
from bench_plugins.backbones._weights.checkpoint import (
    LOADING,
    check_values,
    checked_header,
    first_line,
    header,
    is_finite,
    is_lora,
    load_model,
    lora_alone,
)

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
    """Load all of a pipeline on the CPU, and add its LoRAs.

    Raises UserError as `load_component` and `add_loras` do.
    """
    pipe = copy.copy(empty.pipe)
    for name in empty.classes:
        setattr(pipe, name, load_component(empty, name))
    add_loras(pipe, empty.weights)
    return pipe


def load_component(empty: EmptyPipeline, name: str, device: Any = "cpu") -> Any:
    """Load a component of a pipeline, from its folder or single file, for inference.

    Raises UserError if it lacks a tensor, or has another one or one that is not finite, or a
    library cannot load it.
    """
    weights, kind, dtype = empty.weights, empty.classes[name], getattr(empty.pipe, name).dtype
    if name not in components_in_file(empty):
        return load_model(weights, name, kind, dtype, device)
    if hasattr(kind, "from_single_file"):
        module = _from_file(weights, kind, torch_dtype=dtype, subfolder=name)
    else:  # its library does not read such files, and the pipeline does
        others = {n: part for n, part in empty.pipe.components.items() if n != name}
        more = {"requires_safety_checker": False} if "safety_checker" in others else {}
        whole = _from_file(weights, type(empty.pipe), torch_dtype=dtype, **others, **more)
        module = getattr(whole, name)
    check_values(replace(weights, location=str(weights.file), revision=None), name, module)
    return module.to(device).eval().requires_grad_(False)


def components_in_file(empty: EmptyPipeline) -> Collection[str]:
    """Return the names of the components whose tensors are in the single file, if there is one.

    Raises UserError unless it has as many values as their configs describe: diffusers renames,
    splits and joins its tensors, and does not say which it does not read.
    """
    weights = empty.weights
    if weights.file is None:
        return ()
    shapes = _shapes(Path(weights.file))
    names = [
        name
        for name, kind in empty.classes.items()
        if (
            has_text_encoder(kind, shapes)
            if issubclass(kind, transformers.PreTrainedModel)
            else hasattr(kind, "from_single_file")
        )
    ]
    described = {name: _values(getattr(empty.pipe, name).state_dict()) for name in names}
    if (stored := _values(shapes)) != sum(described.values()):
        alone = [f" It is the {name} alone." for name in names if described[name] == stored]
        raise UserError(
            f"The weights {weights.file} have {stored:,} values; the configs of"
            f" {', '.join(names)} describe {sum(described.values()):,}.{''.join(alone[:1])}"
        )
    return names


def _values(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the number of values in the tensors that a pipeline reads."""
    return sum(t.numel() for name, t in tensors.items() if not UNUSED.match(name))


def _from_file(weights: Weights, kind: Any, **options: Any) -> Any:
    """Return a pipeline or, from a `subfolder`, a component with the tensors of a single file."""
    source: dict[str, Any] = {"config": str(weights.folder("")), "local_files_only": True}
    try:
        with LOADING:
            return kind.from_single_file(weights.file, **source, **options)
    except Exception as error:  # whatever the libraries raise for missing or invalid files
        raise UserError(
            f"The weights {weights.file} cannot be loaded: diffusers does not read them as a"
            f" {kind.__name__} ({type(error).__name__}: {first_line(error)})."
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
    where = replace(weights, location=str(path.parent), revision=None)
    if not checked_header(where, path.name, path):
        raise where.error(path.name, "contains no tensors")


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


def add_loras(pipe: Any, weights: Weights) -> None:
    """Add LoRAs with their scales to a pipeline, in place. Its modules may be on the meta device.

    Raises UserError if one does not fit.
    """
    names = [f"lora_{number}" for number in range(len(weights.loras))]
    for name, lora in zip(names, weights.loras, strict=True):
        problem = ""
        try:
            file = Path(lora.path)
            # If a file is given without `weight_name`, older versions of diffusers ask the Hub.
            options: dict[str, Any] = {"weight_name": file.name} if file.is_file() else {}
            source = str(file.parent) if options else lora.path
            pipe.load_lora_weights(source, adapter_name=name, **options)
            state = type(pipe).lora_state_dict(source, **options)
            names_in_file = state[0] if isinstance(state, tuple) else state
            expected = sum(any(layer in key for layer in LORA_LAYERS) for key in names_in_file)
        except Exception as error:  # whatever diffusers and PEFT raise
            problem, expected = first_line(error), 0
        added: list[torch.Tensor] = []
        for component in modules_of(pipe).values():
            component.eval()  # a LoRA may come with dropout
            added += [part for path, part in component.named_parameters() if f".{name}." in path]
        if not all(part.is_meta or is_finite(part) for part in added):
            problem = "it contains values that are not finite"
        if problem or len(added) != expected or not added:
            problem = problem or (
                f"{expected - len(added)} of its {expected} tensors match no layer of the pipeline"
            )
            raise UserError(f"--lora {lora.path} does not fit {type(pipe).__name__}: {problem}.")
    if names:
        pipe.set_adapters(names, [lora.scale for lora in weights.loras])
