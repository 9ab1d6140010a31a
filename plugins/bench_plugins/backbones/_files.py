"""Check a pipeline's files; load pipelines, single files and LoRAs with diffusers."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
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
from bench_plugins.backbones._components import (
    AUTOENCODER,
    NETWORKS,
    PIPELINE_INDEX,
    cast,
    components_of,
    dtype_of,
    make_pipeline,
)
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._gate import class_problem, modules_of

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
    r"model_ema\.|(\w+_)?alphas_cumprod|(betas|logvar|scale_factor|denoiser\.sigmas)$|posterior_"
    r"|cond_stage_model\.model\.transformer\.resblocks\.23\."
    r"|(.+\.)?(position_ids|attn_mask|logit_scale|encoder\.embed_tokens\.weight|text_projection(\.weight)?)$"
)


def read_index(weights: Weights, pipelines: Sequence[str]) -> dict[str, Any]:
    """Return a folder's `model_index.json`. An empty `pipelines` allows any pipeline class.

    If there is none, the first of `pipelines` is assumed. The class of an image-to-image pipeline
    is replaced by the text-to-image one, which has the same components. Raises UserError if the
    class is not allowed, or there is no index and no class to assume.
    """
    if weights.find(PIPELINE_INDEX) is None and pipelines:
        return {"_class_name": pipelines[0]}
    index = weights.read(PIPELINE_INDEX)
    name = index.get("_class_name")
    if pipelines and name not in pipelines:
        raise weights.error(
            PIPELINE_INDEX,
            f"has _class_name {name!r:.100}; expected {', '.join(pipelines)} here",
        )
    return {**index, "_class_name": str(name).replace("Img2Img", "") if pipelines else name}


def pipeline_class(weights: Weights, index: Mapping[str, Any]) -> Any:
    """Return the diffusers class of the pipeline in a folder.

    Raises UserError if the installed diffusers does not have it, or its class cannot be used.
    """
    name = index.get("_class_name")
    try:
        pipeline_cls = getattr(diffusers, name, None) if isinstance(name, str) else None
    except RuntimeError as error:  # a package that the class needs is not installed
        cause = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise weights.error(
            PIPELINE_INDEX, f"has _class_name {name!r:.100}, which cannot be imported: {cause}"
        ) from error
    if pipeline_cls is None or not issubclass(pipeline_cls, diffusers.DiffusionPipeline):
        facts = facts_of(str(name))
        needed = f"; it requires {facts.requires}" if facts else ""
        raise weights.error(
            PIPELINE_INDEX,
            f"has _class_name {name!r:.100}, which diffusers {diffusers.__version__} does not"
            f" have{needed}",
        )
    if problem := class_problem(pipeline_cls):
        raise weights.error(
            PIPELINE_INDEX, f"has _class_name {name!r:.100}, which cannot be used: {problem}"
        )
    return pipeline_cls


def load_pipeline(weights: Weights, dtype: torch.dtype) -> Any:
    """Load a folder's or a file's pipeline on the CPU, with its LoRAs.

    Raises UserError if a component lacks a tensor, or has another one or one that is not finite, or
    if diffusers cannot load the pipeline.
    """
    index = weights.read(PIPELINE_INDEX)
    pipeline_cls = pipeline_class(weights, index)
    shapes = {} if weights.file is None else _shapes(Path(weights.file))
    in_file: dict[str, torch.dtype] = {}

    def model_of(name: str, component_cls: Any) -> nn.Module | None:
        own = dtype_of(name, component_cls, dtype)
        if not _is_in_file(component_cls, shapes):
            module: nn.Module = load_model(weights, name, component_cls, own, "cpu")
            return module
        in_file[name] = own
        if issubclass(component_cls, transformers.PreTrainedModel):
            return None  # the pipeline's own loader reads it
        module = _from_file(weights, name, component_cls, torch_dtype=own)
        return module

    components = components_of(weights, pipeline_cls, index, (), model_of)
    if weights.file is None:
        pipe = make_pipeline(weights, pipeline_cls, components)
    else:
        encoders = {own for name, own in in_file.items() if name != AUTOENCODER}
        widest = torch.float32 if torch.float32 in encoders else dtype
        pipe = _from_file(weights, "", pipeline_cls, torch_dtype=widest, **components)
        for name, own in in_file.items():
            cast(getattr(pipe, name), own).eval().requires_grad_(False)
        modules = {name: getattr(pipe, name) for name in in_file}
        _check_file(replace(weights, location=weights.file, revision=None), modules)
    add_loras(pipe, weights)
    return pipe


def _from_file(weights: Weights, name: str, kind: Any, **options: Any) -> Any:
    """Return a pipeline or, with its `name`, a component with the tensors of a single file."""
    source: dict[str, Any] = {"config": str(weights.folder("")), "local_files_only": True}
    source |= {"subfolder": name} if name else {}
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
        raise UserError(
            f"{path} is a LoRA, not a whole model. Add it to the pipeline that it was trained for:"
            f" --backbone PIPELINE --lora {path}"
        )
    tensors = header(path)
    if not tensors:
        raise UserError(f"{path} is damaged, or contains no tensors.")
    dtypes = {dtype for dtype, _ in tensors.values()}
    if quantised := sorted(dtypes - {*FLOAT_DTYPES, *INDEX_DTYPES}):
        raise UserError(
            f"{path} contains tensors of dtype {quantised[0]}: the model is quantised; {HAND_OVER}."
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
