"""LoRAs and learned embeddings inside a pipeline's folder, which are not applied."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from bench.errors import BenchWarning
from bench.inputs.weights import Weights

# In the names of tensors: of diffusers, PEFT, kohya and LyCORIS; each is that of no plain model.
LORA_TENSORS = ("lora_", "lora.", "hada_w1", "lokr_w1", "dora_scale", "oft_blocks")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")  # never opened: their names tell
NAMES = ("lora", "learned_embeds", "textual_inversion")
FEW = 8  # tensors of a learned embedding; a model has more


def warn_of_adapters(weights: Weights, parts: Collection[str]) -> None:
    """Warn of LoRAs and embeddings in a folder on this machine.

    Args:
        weights: the pipeline.
        parts: its folders that are read.
    """
    if weights.revision is None and (names := sorted(_adapters(Path(weights.location), parts))):
        warnings.warn(
            f"The weights {weights.location} hold {' and '.join(names[:3])}"
            f"{f' and {len(names) - 3} more' if len(names) > 3 else ''}, which look like a LoRA or"
            " a learned embedding. They are not applied: fuse them into the pipeline and save it,"
            " or take them out of the folder.",
            BenchWarning,
            stacklevel=2,
        )


def _adapters(root: Path, parts: Collection[str]) -> Iterator[str]:
    for parent, _, files in os.walk(root):
        for file in files:
            name = os.path.relpath(Path(parent, file), root)
            if file.endswith(".safetensors"):
                if _is_adapter(Path(parent, file), Path(name).parts[0] in parts):
                    yield name
            elif file.endswith(PICKLES) and any(word in file.lower() for word in NAMES):
                yield name


def _is_adapter(path: Path, in_part: bool) -> bool:
    """Tell from the header whether a file is a LoRA, or outside the parts an embedding."""
    try:
        with safe_open(path, framework="pt") as opened:
            names = list(opened.keys())
            if any(word in name for name in names for word in LORA_TENSORS):
                return True
            shapes = [opened.get_slice(name).get_shape() for name in names[: FEW + 1]]
    except (SafetensorError, OSError):
        return False  # of a part, it is refused where it is read
    few = not in_part and 0 < len(shapes) <= FEW
    return few and all(len(shape) in (1, 2) for shape in shapes)
