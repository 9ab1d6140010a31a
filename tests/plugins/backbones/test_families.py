"""Every family against its own pipeline: errors by hand, a sampling step, and the contract.

The pipelines are small and random, of the real classes: no weights of the Hub.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.by_hand import error
from helpers.command import bench
from helpers.families import save
from PIL import Image
from safetensors.torch import save_file

import bench as toolkit
from bench.engine.denoiser import CheckedDenoiser
from bench.store.cells import read_cells
from bench.store.folder import read_manifest
from bench.testing import DenoiserContract

KINDS = ["sdxl"]
CLASSES = ("cat", "fir tree")
TEXTS = [f"a photo of a {name}" for name in CLASSES]
LEVELS = (166, 500, 833)  # of three draws


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    root = tmp_path_factory.mktemp("families")
    return {kind: (root / kind, save(kind, root / kind)) for kind in KINDS}


@pytest.fixture(scope="session")
def backbones(saved: dict[str, tuple[Path, Any]]) -> dict[str, CheckedDenoiser]:
    def load(kind: str) -> CheckedDenoiser:
        made = toolkit.load_backbone(str(saved[kind][0]), device="cpu", dtype="float32")
        return CheckedDenoiser(made, kind)

    return {kind: load(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
class TestEveryFamily(DenoiserContract):
    @pytest.fixture
    def backbone(self, kind: str, backbones: dict[str, CheckedDenoiser]) -> CheckedDenoiser:
        return backbones[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_computed_by_hand(
    kind: str, saved: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, pipe = saved[kind]
    shape = toolkit_shape(folder)
    side = 2 * shape[-1]
    for number, name in enumerate(CLASSES):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / name / "1.png")
    noise = torch.randn(3, *shape, generator=torch.Generator().manual_seed(3))
    save_file({"noise": noise}, tmp_path / "noise.safetensors")
    done = bench(
        *("run", tmp_path / "pictures", "--backbone", f"{folder}{os.sep}", "--strategy", "full"),
        *("--set", "draws=3", "--noise", tmp_path / "noise.safetensors", "--dtype", "float32"),
        *("--save-errors", "--results", tmp_path / "results", "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["backbone"]["name"] == folder.name
    run = Path(done.json["results_dir"])
    for number, sample in enumerate(sorted(read_manifest(run).samples)):
        found = read_cells(run / "errors", sample, (2, 3))
        image = Image.open(tmp_path / "pictures" / CLASSES[number] / "1.png")
        wanted = [
            [error(kind, pipe, image, text, row, noise[k : k + 1]) for k, row in enumerate(LEVELS)]
            for text in TEXTS
        ]
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        assert np.ptp(found, axis=0).max() > 1e-3 * found.max(), "the prompts do not count"


@pytest.mark.parametrize("kind", KINDS)
def test_a_sampling_step_is_the_pipeline_s(
    kind: str, saved: dict[str, tuple[Path, Any]], backbones: dict[str, CheckedDenoiser]
) -> None:
    """The plugin's prediction, stepped by the scheduler, is what the pipeline's own loop made."""
    pipe, backbone = saved[kind][1], backbones[kind]
    steps: list[tuple[Any, torch.Tensor, torch.Tensor]] = []
    own = pipe.scheduler.step

    def recorded(answer: torch.Tensor, t: Any, sample: torch.Tensor, **given: Any) -> Any:
        made = own(answer, t, sample, **given)
        steps.append((t, sample.clone(), made[0].clone()))
        return made

    pipe.scheduler.step = recorded
    try:
        pipe(**asked(kind, TEXTS[1]))
    finally:
        pipe.scheduler.step = own
    pipe.scheduler.set_timesteps(len(steps), **timesteps(kind, pipe))
    conditioning = backbone.encode_prompts([TEXTS[1]])
    for t, sample, wanted in steps:
        x_t, time = given(kind, backbone, pipe, t, sample)
        with torch.inference_mode():
            answer = returned(kind, backbone.denoise(x_t, time, conditioning))
        made = own(answer, t, sample, return_dict=False)[0]
        scale = float((wanted - sample).abs().max())
        torch.testing.assert_close(made, wanted, rtol=0, atol=1e-5 * max(scale, 1e-3))


def toolkit_shape(folder: Path) -> tuple[int, int, int]:
    made: tuple[int, int, int] = toolkit.load_backbone(str(folder)).latent_shape
    return made


def asked(kind: str, text: str) -> dict[str, Any]:
    """Return what the pipeline is asked for: two steps, no guidance beside the prompt's own."""
    return {
        "prompt": text,
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(5),
    }


def timesteps(kind: str, pipe: Any) -> dict[str, Any]:
    return {}


def given(
    kind: str, backbone: CheckedDenoiser, pipe: Any, t: Any, sample: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x_t and the level table's time of a step of the pipeline."""
    levels = backbone.levels
    row = int(np.flatnonzero(levels.time == int(t))[0])
    return sample, torch.tensor([levels.time[row]])


def returned(kind: str, answer: torch.Tensor) -> torch.Tensor:
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_text_encoders_are_freed_before_the_network_is_loaded(
    kind: str, saved: dict[str, tuple[Path, Any]]
) -> None:
    made = toolkit.load_backbone(str(saved[kind][0]), device="cpu")
    made.encode_prompts(TEXTS)
    assert not [name for name, value in vars(made).items() if isinstance(value, torch.nn.Module)]
    assert isinstance(made.network, torch.nn.Module)
