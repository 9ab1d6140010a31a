"""Whole weights of each form, which tests copy and damage, and small ones of each family."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
from helpers.damage import TINY, copy_pipeline
from helpers.encoders import save_clip
from helpers.families import save
from helpers.loras import save_lora
from helpers.pipelines import save_pipeline
from helpers.single_file import save_single_file

from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.inputs.weights import resolve
from bench.running.parts.model import family_of

INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
SINGLE, LORA = "one.safetensors", "lora.safetensors"
Forms = Callable[[str], Path]
Saved = Callable[[str], tuple[Path, Any]]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Return the folder of a family's small pipeline, which is made once, and the pipeline."""
    root = tmp_path_factory.mktemp("families")

    @cache
    def of(kind: str) -> tuple[Path, Any]:
        return root / kind, save(kind, root / kind)

    return of


def backbone_of(folder: Path, **settings: Any) -> Any:
    """Return the backbone of the family, or of any class, that a folder's index names."""
    spec = load_plugins().backbones.get(family_of(str(folder), None) or "")
    return make(spec, resolve(str(folder)), **settings)


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Forms:
    """Return the whole folder of a form, which is made once.

    `indexed` is a small Stable Diffusion, with its tensors as a single file and a LoRA beside it.
    """
    root = tmp_path_factory.mktemp("forms")

    @cache
    def of(form: str) -> Path:
        folder = root / form
        if form == "tiny":
            return copy_pipeline(TINY, folder)
        if form == "clip":
            return save_clip(folder)
        if form == "nothing":
            folder.mkdir()
        elif form == "indexed":
            pipe = diffusers.DiffusionPipeline.from_pretrained(save_pipeline(folder))
            save_single_file(pipe, folder / SINGLE)
            save_lora(pipe, root / "lora").rename(folder / LORA)
        else:
            save(form, folder)
        return folder

    return of
