"""A folder or repository in diffusers' layout whose class no family here loads."""

from __future__ import annotations

import inspect
import warnings
from math import prod
from pathlib import Path
from typing import Any

import diffusers
import torch

from bench.errors import BenchWarning, UserError
from bench.inputs.weights import HAND_OVER, SINGLE_FILE, Weights, unread_format
from bench_plugins.backbones._checkpoint import first_line, header
from bench_plugins.backbones._driving import CLASS_LABELS
from bench_plugins.backbones._facts import facts_of
from bench_plugins.backbones._files import add_loras, check_files, config_source, load_single_file
from bench_plugins.backbones._folders import PIPELINE_INDEX
from bench_plugins.backbones._latent import TORCH_DTYPES
from bench_plugins.backbones.pipeline import PipelineDenoiser

PICTURES = {"image", "mask_image", "control_image", "video"}  # keywords of a call
STEERING = {"controlnet", "adapter"}  # parts
PART_LIBRARIES = ("diffusers", "transformers")  # beside the modules of pipelines in diffusers


class FolderPipeline(PipelineDenoiser):
    """The pipeline in a folder, run by its own code.

    Its parts are loaded by diffusers, from safetensors only. `dtype` is that of the network and the
    text encoders; the VAE stays in float32, as for the families here.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        normalize: str = "half",
        resolution: int | None = None,
        **parameters: Any,
    ) -> None:
        pipe = load_pipeline(weights, TORCH_DTYPES[dtype])
        add_loras(pipe, weights)
        self.prepare(pipe, **parameters)
        super().__init__(pipe.to(device), resolution=resolution, normalize=normalize)

    def prepare(self, pipe: Any, **parameters: Any) -> None:
        """Change the pipeline before it is moved to its device."""

    @classmethod
    def check_weights(cls, weights: Weights, *, dtype: str = "float32", **parameters: Any) -> None:
        """Refuse a pipeline that is not run here, without reading a tensor."""
        name = pipeline_class(weights).__name__
        check_parts(weights, weights.file is None)
        if weights.loras or weights.file:
            check_files(weights)
            return
        facts = "are declared" if facts_of(name) else "are probed"
        warnings.warn(
            f"The weights {weights.location} are a {name}, which no family here loads: the"
            f" pipeline's own code runs, and facts about it {facts}.",
            BenchWarning,
            stacklevel=2,
        )

    @classmethod
    def memory(cls, weights: Weights, dtype: str, **parameters: Any) -> int | None:
        """Return the bytes of all parts, which stay in memory together; None of the Hub's."""
        if weights.revision is not None or weights.file is not None:
            return None
        width, total = TORCH_DTYPES[dtype].itemsize, 0
        for part in weights.read(PIPELINE_INDEX):
            for file in Path(weights.location, part).glob("*.safetensors"):
                sizes = (prod(shape) for _, shape in header(file).values())
                total += sum(sizes) * (4 if part == "vae" else width)
        return total or None

    @staticmethod
    def config_source(file: Path) -> str:
        """Return the Hub id of the pipeline whose configs a single file goes with."""
        return config_source(file)


def check_parts(weights: Weights, with_tensors: bool) -> None:
    """Refuse parts that are quantised, or on this machine have no safetensors (UserError)."""
    for part, made in weights.read(PIPELINE_INDEX).items():
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


def pipeline_class(weights: Weights) -> Any:
    """Return the class of the pipeline in a folder, one of the installed diffusers.

    Raises:
        UserError: there is no such class, or it does not make images of prompts alone, or a part is
            of no library that is loaded from.
    """
    index = weights.read(PIPELINE_INDEX)
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
        needed = f" It needs {facts.requires}." if facts and facts.requires else ""
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
    # Of many such pipelines the picture has a default, None, with which they fail.
    pictures = PICTURES & takes.keys() and facts_of(kind.__name__) is None
    steered = STEERING & inspect.signature(kind.__init__).parameters.keys()
    if pictures or steered or not {"prompt", CLASS_LABELS} & takes.keys():
        raise weights.error(
            PIPELINE_INDEX,
            f"has _class_name {name!r:.100}, which makes no images of prompts alone",
        )
    return kind


def load_pipeline(weights: Weights, dtype: torch.dtype, **parts: Any) -> Any:
    """Return the pipeline of a folder on the CPU, with `parts` in place of its own.

    Raises:
        UserError: diffusers does not load it.
    """
    kind, index = pipeline_class(weights), weights.read(PIPELINE_INDEX)
    source = {"revision": weights.revision, "use_safetensors": True}
    takes = inspect.signature(kind.__init__).parameters
    if "safety_checker" in takes:  # it looks at pictures, of which none are made
        parts = {"safety_checker": None, "requires_safety_checker": False, **parts}
    try:
        if weights.file is None and "vae" in takes and "vae" not in parts:
            autoencoder = getattr(diffusers, index["vae"][1])
            parts["vae"] = autoencoder.from_pretrained(
                weights.location, subfolder="vae", torch_dtype=torch.float32, **source
            )
        if weights.file is not None:
            pipe = load_single_file(kind, weights, dtype, parts)
        else:
            pipe = kind.from_pretrained(weights.location, torch_dtype=dtype, **parts, **source)
    except Exception as error:  # whatever the libraries raise where files are missing or odd
        raise UserError(
            f"The weights {weights.location} cannot be loaded: {first_line(error)}."
        ) from error
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipe
