"""Weights other than a plain folder: with LoRAs, from a single file, or in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.inputs.weights import SINGLE_FILE, Lora, Weights, advise_format, hash_file
from bench.machine.files import regular_file


@dataclass(frozen=True)
class InMemory(Weights):
    """A backbone object that a Python caller passed, in place of files.

    `location` is its name, and `fingerprint` a hash of everything that affects its results.
    """

    backbone: Any = field(default=None, compare=False, repr=False)
    description: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


def parse_lora(text: str) -> Lora:
    """Parse `PATH` or `PATH:SCALE`, where a folder stands for the only safetensors file in it.

    Raises UserError if that is not exactly one existing safetensors file.
    """
    name, _, scale = text.rpartition(":")
    try:
        path, factor = Path(name), float(scale)
    except ValueError:
        name = ""
    if not name or not isfinite(factor):
        path, factor = Path(text), 1.0
    path = path.expanduser().absolute()
    if path.is_dir():
        files = sorted(path.glob(f"*{SINGLE_FILE}"))
        if len(files) != 1:
            raise UserError(
                f"--lora {text}: the folder holds {len(files)} safetensors files; name one."
            )
        path = files[0]
    if path.suffix != SINGLE_FILE or not path.is_file():
        problem = advise_format([path]) or f"expected a {SINGLE_FILE} file or its folder"
        raise UserError(f"--lora {text}: {problem}.")
    return Lora(str(path), factor)


def add_files(weights: Weights, loras: Sequence[Lora], file: str | None) -> Weights:
    """Return weights with LoRAs, and with tensors of a single file instead of the folder's.

    Raises UserError if a file does not exist or is not regular.
    """
    if not loras and file is None:
        return weights
    contents = [(_hash_of(lora.path), lora.scale) for lora in loras]
    parts = json.dumps([weights.fingerprint, contents, file and _hash_of(file)])
    whole = hashlib.sha256(parts.encode()).hexdigest()
    return replace(weights, fingerprint=whole, loras=tuple(loras), file=file)


def _hash_of(file: str) -> str:
    path = Path(file)
    if (real := regular_file(path.parent, path.name)) is None:
        raise UserError(f"The weights file {file} does not exist.")
    return hash_file(path, real)
