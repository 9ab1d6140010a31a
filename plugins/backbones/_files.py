"""Files beside a pipeline's folder: LoRAs, and a single file with the tensors of all parts."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.loaders import single_file_utils

from bench.errors import UserError
from bench.inputs.weights import HAND_OVER, Weights
from bench_plugins.backbones._checkpoint import FLOAT_DTYPES, first_line, header, is_lora
from bench_plugins.backbones._parts import PIPELINE_INDEX

LDM_NETWORK = "model.diffusion_model.input_blocks.0.0.weight"  # of the first Stable Diffusion
LORA_LAYERS = ("lora_A", "lora_B", "lora_down", "lora_up", "lora.down", "lora.up")


def check_files(weights: Weights) -> None:
    """Refuse LoRAs and a single file that are something else, by their headers."""
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
    if kind == "v1" and LDM_NETWORK not in shapes:  # what it says of everything else
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
    if hasattr(autoencoder, "from_single_file") and "vae" not in parts:  # float32, as of a folder
        in_full = {**source, "subfolder": "vae", "torch_dtype": torch.float32}
        parts = {**parts, "vae": autoencoder.from_single_file(weights.file, **in_full)}
    return kind.from_single_file(weights.file, torch_dtype=dtype, **source, **parts)


def add_loras(pipe: Any, weights: Weights) -> None:
    """Add LoRAs to a pipeline, at their scales.

    Raises:
        UserError: one does not fit, or some of its tensors are for no part of the pipeline.
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
