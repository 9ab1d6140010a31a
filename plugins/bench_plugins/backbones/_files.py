"""Check a pipeline's files; load pipelines, single files and LoRAs with diffusers."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders import single_file_utils
from torch import nn

from bench.errors import UserError
from bench.inputs.weights import HAND_OVER, SINGLE_FILE, Weights, advise_format
from bench_plugins.backbones._checkpoint import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    LOADING,
    check_values,
    first_line,
    header,
    is_lora,
)
from bench_plugins.backbones._components import (
    AUTOENCODER,
    COMPONENT_LIBRARIES,
    NETWORKS,
    PIPELINE_INDEX,
    component_class,
    load_component,
)
from bench_plugins.backbones._configs import check_not_quantised
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._runner import CLASS_LABELS

IMAGE_INPUTS = {"image", "mask_image", "control_image", "video"}  # parameters of `__call__`
CONTROL_COMPONENTS = {"controlnet", "adapter"}
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


def tensor_bytes(weights: Weights, dtype: torch.dtype) -> int | None:
    """Return the bytes of all tensors in a local folder, or None if the size is unknown.

    The VAE counts in float32, and all others in `dtype`.
    """
    if weights.revision is not None or weights.file is not None:
        return None
    total = 0
    for component in weights.read(PIPELINE_INDEX):
        for file in Path(weights.location, component).glob("*.safetensors"):
            sizes = (prod(shape) for _, shape in header(file).values())
            total += sum(sizes) * (4 if component == "vae" else dtype.itemsize)
    return total or None


def check_components(weights: Weights, index: Mapping[str, Any], with_tensors: bool) -> None:
    """Raise UserError if a component is quantised or, in a local folder, has no safetensors.

    With `with_tensors` False, the folder may contain only configs.
    """
    for component, entry in index.items():
        config = f"{component}/config.json"
        if not isinstance(entry, list) or not entry[0] or weights.find(config) is None:
            continue
        check_not_quantised(weights, config, weights.read(config))
        folder = Path(weights.location, component)
        if with_tensors and folder.is_dir() and not [*folder.glob(f"*{SINGLE_FILE}")]:
            other = advise_format(folder.iterdir())
            raise weights.error(
                f"{component}/", f"has no safetensors{f'; {other}' if other else ''}"
            )


def pipeline_class(weights: Weights, index: Mapping[str, Any]) -> Any:
    """Return the diffusers class of the pipeline in a folder.

    Raises UserError if the installed diffusers does not have it, it is not a text-to-image
    pipeline, or a component is of a library other than diffusers and transformers.
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
    for component, entry in index.items():
        library = entry[0] if isinstance(entry, list) and entry else None
        if (
            library
            and library not in COMPONENT_LIBRARIES
            and not hasattr(diffusers.pipelines, str(library))
        ):
            raise weights.error(
                PIPELINE_INDEX,
                f"has {component} of the library {library!r:.100}; expected"
                f" {' or '.join(COMPONENT_LIBRARIES)}",
            )
    parameters = inspect.signature(pipeline_cls.__call__).parameters
    # Many pipelines that need an image declare None as its default, and fail with it.
    needs_image = IMAGE_INPUTS & parameters.keys() and facts_of(pipeline_cls.__name__) is None
    needs_control = CONTROL_COMPONENTS & inspect.signature(pipeline_cls.__init__).parameters.keys()
    if needs_image or needs_control or not {"prompt", CLASS_LABELS} & parameters.keys():
        raise weights.error(
            PIPELINE_INDEX,
            f"has _class_name {name!r:.100}, which is not a text-to-image pipeline: it needs more"
            " than prompts",
        )
    return pipeline_cls


def load_pipeline(weights: Weights, dtype: torch.dtype) -> Any:
    """Load a folder's or a file's pipeline on the CPU, with its LoRAs. The VAE is in float32.

    Raises UserError if a component lacks a tensor, or has another one or one that is not finite, or
    if diffusers cannot load the pipeline.
    """
    index = weights.read(PIPELINE_INDEX)
    pipeline_cls = pipeline_class(weights, index)
    shapes = {} if weights.file is None else _shapes(Path(weights.file))
    source: dict[str, Any] = {"local_files_only": True}
    parameters = inspect.signature(pipeline_cls.__init__).parameters
    # It checks generated images. None are generated here.
    if "safety_checker" in parameters:
        source.update(safety_checker=None, requires_safety_checker=False)
    names = {name for name in parameters if isinstance(index.get(name), list) and index[name][0]}
    in_file = []
    try:
        folder = str(weights.folder(""))
        with LOADING:
            for name in sorted(names - source.keys()):
                component_cls = component_class(weights, pipeline_cls, index, name)
                own_dtype = torch.float32 if name == AUTOENCODER else dtype
                if not issubclass(component_cls, nn.Module):
                    continue
                if not _is_in_file(component_cls, shapes):
                    source[name] = load_component(weights, name, component_cls, own_dtype, "cpu")
                    continue
                in_file.append(name)
                if own_dtype != dtype:
                    config = {"config": folder, "subfolder": name, "local_files_only": True}
                    source[name] = component_cls.from_single_file(
                        weights.file, torch_dtype=own_dtype, **config
                    )
            if weights.file is None:
                pipe = pipeline_cls.from_pretrained(folder, torch_dtype=dtype, **source)
            else:
                source.update(config=folder, torch_dtype=dtype)
                pipe = pipeline_cls.from_single_file(weights.file, **source)
    except UserError:
        raise
    except Exception as error:  # whatever the libraries raise for missing or invalid files
        raise UserError(
            f"The weights {weights.file or weights.location} cannot be loaded: {first_line(error)}."
        ) from error
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            component.eval().requires_grad_(False)
    if weights.file is not None:
        modules = {name: getattr(pipe, name) for name in in_file}
        _check_file(replace(weights, location=weights.file, revision=None), modules)
    add_loras(pipe, weights)
    return pipe


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
