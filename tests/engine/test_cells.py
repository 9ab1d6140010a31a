"""Cells agree with an independent float32 computation, and nothing but the settings moves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command import bench
from helpers.matrix import matrix
from helpers.pipelines import loaded
from oracle.question import Question
from oracle.reference import errors
from PIL import Image
from safetensors.torch import save_file

import bench as toolkit
from bench.store.cells import read_cells
from bench.store.folder import read_records

DRAWS = 3


@pytest.mark.parametrize(
    ("kind", "loss"), matrix([("sd15", "l2"), ("sd21", "huber")], [("sd21", "huber")])
)
def test_cells_equal_an_independent_computation(
    kind: str, loss: str, pipelines: dict[str, Path], tmp_path: Path
) -> None:
    bank = tmp_path / "noise.safetensors"
    save_file({"noise": torch.randn(DRAWS, 4, 8, 8)}, bank)
    for name in ("cat", "dog"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (19, 30, 3), np.uint8)
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "data" / name / "1.png")
    summary = toolkit.run(
        str(tmp_path / "data"),
        backbone=str(pipelines[kind]),
        strategy="full",
        params={"draws": DRAWS},
        loss=loss,
        batch_size=16,
        noise=str(bank),
        save_errors=True,
        results=str(tmp_path),
    )
    run = Path(summary["results_dir"])
    files = {name: tmp_path / "data" / name for name in read_records(run)}
    prompts = (("a photo of a cat", 0), ("a photo of a dog", 1))
    question = Question(prompts, 16, draws=DRAWS, loss=loss, noise=bank)
    wanted, _ = errors(loaded(pipelines[kind]), files, question)
    found = [read_cells(run / "errors", name, (2, DRAWS)) for name in files]
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_torch_saved_noise_is_read_too(pipelines: dict[str, Path], tmp_path: Path) -> None:
    noise = torch.randn(2, 4, 8, 8)
    save_file({"noise": noise}, tmp_path / "a.safetensors")
    torch.save(noise, tmp_path / "b.pt")
    ids = [
        toolkit.run(
            "digits",
            backbone=str(pipelines["sd15"]),
            strategy="full",
            params={"draws": 2},
            limit=1,
            batch_size=16,
            noise=str(tmp_path / name),
            results=str(tmp_path),
        )["run_id"]
        for name in ("a.safetensors", "b.pt")
    ]
    assert ids[0] == ids[1]  # the identity is the noise, not the file


@pytest.fixture(scope="module")
def runs(pipelines: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """One run a batch size."""
    found = {}
    for batch_size in (7, 64):
        summary = toolkit.run(
            "digits",
            backbone=str(pipelines["sd15"]),
            strategy="adaptive",
            params={"samples": "2,6", "keep": "3,1"},
            limit=2,
            batch_size=batch_size,
            results=str(tmp_path_factory.mktemp("runs")),
        )
        found[batch_size] = Path(summary["results_dir"])
    return found


def test_batch_size_changes_nothing(runs: dict[int, Path]) -> None:
    assert runs[7].name == runs[64].name
    others = read_records(runs[7])
    for sample_id, record in read_records(runs[64]).items():
        other = others[sample_id]
        assert other["prediction"] == record["prediction"]
        assert other["score"] == pytest.approx(record["score"], rel=1e-5)
        assert other["evaluations"] == record["evaluations"] == 10 * 2 + 3 * 4


def test_order_of_images_changes_nothing(
    pipelines: dict[str, Path], image_folder: Path, tmp_path: Path
) -> None:
    """The same pictures under names that turn the order round give the same scores."""
    turned = tmp_path / "turned" / "pictures"
    for position, path in enumerate(sorted(image_folder.rglob("*.png"), reverse=True)):
        (turned / path.parent.name).mkdir(parents=True, exist_ok=True)
        (turned / path.parent.name / f"{position:02d}.png").write_bytes(path.read_bytes())
    scores = []
    for folder in (image_folder, turned):
        run = toolkit.run(
            str(folder),
            backbone=str(pipelines["sd15"]),
            strategy="full",
            params={"draws": 3},
            batch_size=4,
            results=str(tmp_path / f"results-{folder.parent.name}"),
        )
        lines = read_records(Path(run["results_dir"])).values()
        scores.append(sorted((r["label"], round(r["score"], 5)) for r in lines))
    assert scores[0] == scores[1]


@pytest.mark.long
def test_half_precision_keeps_float32_errors(pipelines: dict[str, Path], tmp_path: Path) -> None:
    runs = {}
    for dtype in ("float32", "bfloat16"):
        summary = toolkit.run(
            "digits",
            backbone=str(pipelines["sd15"]),
            strategy="full",
            params={"draws": 3},
            dtype=dtype,
            limit=2,
            batch_size=16,
            save_errors=True,
            results=str(tmp_path),
        )
        runs[dtype] = Path(summary["results_dir"])
    assert runs["float32"] != runs["bfloat16"]  # another dtype is another run
    for sample_id in read_records(runs["float32"]):
        exact, rounded = (read_cells(runs[d] / "errors", sample_id, (10, 3)) for d in runs)
        np.testing.assert_allclose(rounded, exact, rtol=0.05)
        # bfloat16 has 8 bits; errors kept in it would all be multiples of 2^-8 of their size.
        assert len(np.unique(rounded)) > 25


def test_out_of_memory_halves_the_batch_and_loses_nothing(
    pipelines: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench_plugins.backbones.families import StableDiffusion

    settings: dict[str, Any] = {
        "backbone": str(pipelines["sd15"]),
        "strategy": "full",
        "params": {"draws": 4},
        "limit": 2,
        "batch_size": 64,
    }
    roomy = toolkit.run("digits", results=str(tmp_path / "roomy"), **settings)
    denoise, sizes = StableDiffusion.denoise, list[int]()

    def small(
        self: StableDiffusion, x_t: torch.Tensor, t: torch.Tensor, conditioning: Any
    ) -> torch.Tensor:
        sizes.append(len(x_t))
        if len(x_t) > 10:
            raise torch.OutOfMemoryError("simulated")
        return denoise(self, x_t, t, conditioning)

    monkeypatch.setattr(StableDiffusion, "denoise", small)
    tight = toolkit.run("digits", results=str(tmp_path / "tight"), **settings)
    assert max(sizes) == 64 and max(sizes[4:]) == 8  # 64, 32, 16 fail once; 8 is remembered
    a, b = (read_records(Path(run["results_dir"])) for run in (roomy, tight))
    assert a.keys() == b.keys()
    for sample_id, record in a.items():
        assert b[sample_id]["score"] == pytest.approx(record["score"], rel=1e-5)
    assert json.dumps(tight["metrics"]) == json.dumps(roomy["metrics"])


def test_a_model_that_yields_nan_fails_the_sample_not_the_run(
    pipelines: dict[str, Path], tmp_path: Path
) -> None:
    import shutil

    from diffusers import AutoencoderKL

    broken = tmp_path / "broken"
    shutil.copytree(pipelines["sd15"], broken)
    vae = AutoencoderKL.from_pretrained(broken / "vae")
    vae.encoder.conv_in.weight.data[:] = 1e38  # finite, but nothing that it makes is
    vae.save_pretrained(broken / "vae")
    done = bench(
        *("run", "digits", "--backbone", broken, "--strategy", "full", "--set", "draws=2"),
        *("--limit", 2, "--batch-size", 16, "--results", tmp_path / "results", "--json"),
    )
    assert done.code == 3, done.err
    assert "nan" in done.err and "Traceback" not in done.err
    assert done.json["failed_samples"] == 2 and done.json["metrics"]["accuracy"] == 0
