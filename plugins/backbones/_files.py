"""The class of a pipeline in a folder or single file, and its loading by diffusers, with LoRAs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders import single_file_utils

from bench.errors import UserError
from bench.inputs.weights import HAND_OVER, SINGLE_FILE, Weights, unread_format
from bench_plugins.backbones._checkpoint import (
    FLOAT_DTYPES,
    LOADING,
    first_line,
    header,
    is_lora,
)
from bench_plugins.backbones._driving import CLASS_LABELS
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._parts import PART_LIBRARIES, PIPELINE_INDEX

PICTURES = {"image", "mask_image", "control_image", "video"}  # keywords of a call
STEERING = {"controlnet", "adapter"}  # parts
LDM_NETWORK = "model.diffusion_model.input_blocks.0.0.weight"  # of the first Stable Diffusion
LORA_LAYERS = ("lora_A", "lora_B", "lora_down", "lora_up", "lora.down", "lora.up")


def read_index(weights: Weights, pipelines: Sequence[str]) -> dict[str, Any]:
    """Return a folder's `model_index.json`; if it has none, that of the family's usual class.

    Raises:
        UserError: it names none of these pipelines, or there is none and no such class.
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
    # An image-to-image pipeline has the parts of the text-to-image one.
    return {**index, "_class_name": str(name).replace("Img2Img", "") if pipelines else name}


def tensor_bytes(weights: Weights, dtype: torch.dtype) -> int | None:
    """Return the bytes of all tensors of a folder; None: of a repository or a single file."""
    if weights.revision is not None or weights.file is not None:
        return None
    total = 0
    for part in weights.read(PIPELINE_INDEX):
        for file in Path(weights.location, part).glob("*.safetensors"):
            sizes = (prod(shape) for _, shape in header(file).values())
            total += sum(sizes) * (4 if part == "vae" else dtype.itemsize)
    return total or None


def check_parts(weights: Weights, index: Mapping[str, Any], with_tensors: bool) -> None:
    """Refuse parts that are quantised or, in a folder here, have no safetensors (UserError)."""
    for part, made in index.items():
        config = f"{part}/config.json"
        if not isinstance(made, list) or not made[0] or weights.find(config) is None:
            continue
        if weights.read(config).get("quantization_config"):
            raise weights.error(
                config, f"has a quantization_config: the model is quantised; {HAND_OVER}"
            )
        folder = Path(weights.location, part)
        if with_tensors and folder.is_dir() and not [*folder.glob(f"*{SINGLE_FILE}")]:
            other = unread_format(folder.iterdir())
            raise weights.error(f"{part}/", f"has no safetensors{f'; {other}' if other else ''}")


def pipeline_class(weights: Weights, index: Mapping[str, Any]) -> Any:
    """Return the class of the pipeline in a folder, one of the installed diffusers.

    Raises:
        UserError: there is no such class, or it does not make images of prompts alone, or a part is
            of no library that is loaded from.
    """
    name = index.get("_class_name")
    try:
        kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    except RuntimeError as error:  # a package that the class needs is not installed
        cause = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise weights.error(
            PIPELINE_INDEX, f"has _class_name {name!r:.100}, which cannot be imported: {cause}"
        ) from error
    if kind is None or not issubclass(kind, diffusers.DiffusionPipeline):
        facts = facts_of(str(name))
        needed = f" It needs {facts.requires}." if facts else ""
        raise weights.error(
            PIPELINE_INDEX,
            f"has _class_name {name!r:.100}, which diffusers {diffusers.__version__} does not"
            f" have.{needed}",
        )
    for part, made in index.items():
        library = made[0] if isinstance(made, list) and made else None
        if (
            library
            and library not in PART_LIBRARIES
            and not hasattr(diffusers.pipelines, str(library))
        ):
            raise weights.error(
                PIPELINE_INDEX, f"takes {part} from {library!r:.100}; only diffusers is loaded from"
            )
    takes = inspect.signature(kind.__call__).parameters
    # Many pipelines that need a picture have None as its default, and fail with it.
    pictures = PICTURES & takes.keys() and facts_of(kind.__name__) is None
    steered = STEERING & inspect.signature(kind.__init__).parameters.keys()
    if pictures or steered or not {"prompt", CLASS_LABELS} & takes.keys():
        raise weights.error(
            PIPELINE_INDEX,
            f"has _class_name {name!r:.100}, which makes no images of prompts alone",
        )
    return kind


def load_pipeline(weights: Weights, dtype: torch.dtype) -> Any:
    """Return the pipeline of a folder on the CPU, with all its tensors.

    Raises:
        UserError: diffusers does not load it.
    """
    kind = pipeline_class(weights, weights.read(PIPELINE_INDEX))
    parts: dict[str, Any] = {}
    # It looks at pictures, of which none are made.
    if "safety_checker" in inspect.signature(kind.__init__).parameters:
        parts = {"safety_checker": None, "requires_safety_checker": False}
    try:
        with LOADING:
            if weights.file is not None:
                pipe = load_single_file(kind, weights, dtype, parts)
            else:
                dtypes = {"vae": torch.float32, "default": dtype}
                pipe = kind.from_pretrained(
                    weights.location,
                    torch_dtype=dtypes,
                    revision=weights.revision,
                    use_safetensors=True,
                    **parts,
                )
    except Exception as error:  # whatever the libraries raise where files are missing or odd
        raise UserError(
            f"The weights {weights.location} cannot be loaded: {first_line(error)}."
        ) from error
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipe


def check_files(weights: Weights) -> None:
    """Refuse LoRAs and a single file whose headers show something else (UserError)."""
    for lora in weights.loras:
        if find_spec("peft") is None:
            raise UserError(
                "--lora needs the extra `lora`: pip install 'diffusion-classifier-bench[lora]'."
            )
        if not is_lora(Path(lora.path)):
            raise UserError(f"--lora {lora.path}: the file holds no LoRA.")
    if weights.file is None:
        return
    if is_lora(path := Path(weights.file)):
        raise UserError(f"{path} is a LoRA alone: --backbone PIPELINE --lora {path} adds it.")
    tensors = header(path)
    if not tensors:
        raise UserError(f"{path} is damaged, or holds no tensors.")
    dtypes = {dtype for dtype, _ in tensors.values()}
    if packed := sorted(dtypes - {*FLOAT_DTYPES, "I64", "I32", "BOOL"}):
        raise UserError(f"{path} holds {packed[0]}: the model is quantised; {HAND_OVER}.")


def config_source(file: Path) -> str:
    """Return the Hub id of the pipeline whose configs and tokenizers a single file goes with.

    Raises:
        UserError: the file is of no kind that diffusers recognises.
    """
    check_files(Weights(str(file), None, "", file=str(file)))
    shapes = {n: torch.empty(shape, device="meta") for n, (_, shape) in header(file).items()}
    kind = single_file_utils.infer_diffusers_model_type(shapes)
    if kind == "v1" and LDM_NETWORK not in shapes:  # diffusers' answer for anything unknown
        raise UserError(
            f"{file} is of no kind that is recognised. Name a folder or Hub id with its configs"
            f" and tokenizers: --backbone FOLDER --weights {file}."
        )
    source = single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]
    return str(source["pretrained_model_name_or_path"])


def load_single_file(kind: Any, weights: Weights, dtype: torch.dtype, parts: Any) -> Any:
    """Return the pipeline of a single file, with `parts` in place of its own.

    Raises:
        Exception: whatever diffusers raises where the file does not fit.
    """
    folder = weights.location
    if weights.revision is not None:
        from huggingface_hub import snapshot_download

        patterns = ["*.json", "*.txt", "*.model"]
        folder = snapshot_download(folder, revision=weights.revision, allow_patterns=patterns)
    source: dict[str, Any] = {"config": folder, "local_files_only": True}
    autoencoder: Any = getattr(
        diffusers, weights.read(PIPELINE_INDEX).get("vae", ["", ""])[1], None
    )
    if hasattr(autoencoder, "from_single_file"):  # float32, as of a folder
        in_full = {**source, "subfolder": "vae", "torch_dtype": torch.float32}
        parts = {**parts, "vae": autoencoder.from_single_file(weights.file, **in_full)}
    return kind.from_single_file(weights.file, torch_dtype=dtype, **source, **parts)


def add_loras(pipe: Any, weights: Weights) -> None:
    """Add LoRAs to a pipeline, at their scales.

    Raises:
        UserError: one does not fit, or has tensors for no part of the pipeline.
    """
    names = [f"lora_{number}" for number in range(len(weights.loras))]
    for name, lora in zip(names, weights.loras, strict=True):
        problem = ""
        try:
            file = Path(lora.path)  # without its name, older versions of diffusers ask the Hub
            where: dict[str, Any] = {"weight_name": file.name} if file.is_file() else {}
            place = str(file.parent) if where else lora.path
            pipe.load_lora_weights(place, adapter_name=name, **where)
            expected = _layers(type(pipe).lora_state_dict(place, **where))
        except Exception as error:  # whatever diffusers and PEFT raise
            problem, expected = first_line(error), 0
        added = _added(pipe, name)
        if problem or added != expected or not added:
            problem = problem or f"{expected - added} of its {expected} tensors have no place"
            raise UserError(f"--lora {lora.path} does not fit {type(pipe).__name__}: {problem}.")
    if names:
        pipe.set_adapters(names, [lora.scale for lora in weights.loras])


def _layers(state: Any) -> int:
    tensors = state[0] if isinstance(state, tuple) else state
    return sum(any(layer in name for layer in LORA_LAYERS) for name in tensors)


def _added(pipe: Any, adapter: str) -> int:
    return sum(
        f".{adapter}." in name
        for part in pipe.components.values()
        if isinstance(part, torch.nn.Module)
        for name, _ in part.named_parameters()
    )
