"""Check the files of a pipeline without loading tensors: its index, components and LoRAs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import diffusers
import torch

from bench.errors import UserError
from bench.inputs.weights import HAND_OVER, SINGLE_FILE, Weights, advise_format
from bench_plugins.backbones._checkpoint import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    first_line,
    header,
    is_lora,
)
from bench_plugins.backbones._components import COMPONENT_LIBRARIES, PIPELINE_INDEX
from bench_plugins.backbones._configs import check_not_quantised
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._runner import CLASS_LABELS

IMAGE_INPUTS = {"image", "mask_image", "control_image", "video"}  # parameters of `__call__`
CONTROL_COMPONENTS = {"controlnet", "adapter"}


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
