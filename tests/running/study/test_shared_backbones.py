"""Runs of a study share a backbone only where each would load the same one by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from helpers.command import bench
from helpers.families import save
from helpers.loras import save_lora
from helpers.matrix import matrix
from helpers.pipelines import save_indexed
from PIL import Image

from bench.running.kinds.denoiser import encode_texts
from bench.running.lifecycle import Shared, run
from bench.running.prepare import prepare
from bench.running.question import PreparedRun
from bench.running.settings import make_config
from bench.store.studies import read_study, study_folder

COMMON = {"strategy": "full", "device": "cpu", "batch_size": 4, "offline": True}
# Axis that changes what is loaded → the pipeline, the setting, and two of its values.
AXES = {
    "a folder's parameter": ("sd3", "params.text", "all", "clip"),
    "a LoRA": ("sd15", "lora", "{root}/lora-1", "{root}/lora-2"),
    "a LoRA's scale": ("sd15", "lora", "{root}/lora-1:0.5", "{root}/lora-1"),
    "a dtype": ("sd15", "dtype", "float32", "bfloat16"),
    "a resolution": ("sd15", "resolution", 16, 32),
    "a folder": (None, "backbone", "{root}/sd15", "{root}/sd3"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pipelines, LoRAs and two datasets of the same classes."""
    root = tmp_path_factory.mktemp("shared")
    save("sd3", root / "sd3")
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(save_indexed(root / "sd15"))
    for seed in (1, 2):
        save_lora(pipe, root / f"lora-{seed}", seed)
    rng = np.random.default_rng(0)
    for place in ("first/cat", "first/dog", "second/cat", "second/dog"):
        (root / place).mkdir(parents=True)
        pixels = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / place / "picture.png")
    return root


def values(axis: str, root: Path) -> tuple[dict[str, str], str, list[Any]]:
    """Return the settings of all cells, the setting that differs, and its two values."""
    pipeline, name, *two = AXES[axis]
    common = {} if pipeline is None else {"backbone": f"{root}/{pipeline}"}
    return common, str(name), [v.format(root=root) if isinstance(v, str) else v for v in two]


@pytest.mark.long
@pytest.mark.parametrize("axis", matrix(AXES, ["a folder's parameter"]))
def test_a_run_of_a_study_is_that_run_alone(
    axis: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common, name, (one, other) = values(axis, root)
    # The first run loads one backbone; later ones need the other, and the same prompts.
    grids = [{"dataset": f"{root}/first", name: [other]}]
    grids += [{"dataset": f"{root}/second", name: [value]} for value in (one, other)]
    tables = [{"pilot": 0, **COMMON, **common}, *({**grid, "params.draws": 2} for grid in grids)]
    file, results, cache = tmp_path / "small.toml", tmp_path / "r", tmp_path / "cache"
    lines = ["".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items()) for table in tables]
    file.write_text("\n[[grid]]\n".join(lines))
    monkeypatch.setenv("BENCH_CACHE_DIR", str(cache))
    done = bench("study", file, "--results", results)
    assert done.code == 0, done.err

    study = read_study(study_folder(results, "small"))
    assert len({cell.run_id for cell in study.cells}) == len(grids)
    for number, cell in enumerate(study.cells):
        stored = records(results / str(cell.run_id))
        for place in (tmp_path / f"cache-{number}", cache):
            monkeypatch.setenv("BENCH_CACHE_DIR", str(place))
            own = {"results": str(tmp_path / f"{number}-{place.name}")}
            alone = run(make_config({**cell.config.plain(), **own}))
            assert alone.manifest.run_id == cell.run_id
            assert records(alone.folder) == stored, f"{dict(cell.axes)}, {place.name}"


def records(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's images without their times."""
    lines = (folder / "samples.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.mark.long
@pytest.mark.parametrize("axis", matrix(AXES, ["a folder's parameter"]))
def test_a_backbone_encodes_the_prompts_of_its_own_runs_alone(
    axis: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    common, name, two = values(axis, root)

    def prepared(value: Any, template: str) -> PreparedRun:
        own = {"params": {"text": value}} if name == "params.text" else {name: value}
        dataset = {"dataset": f"{root}/first", "template": template}
        return prepare(make_config({**COMMON, **common, **own, **dataset}))

    first, foreign = (prepared(value, "{class}") for value in two)
    later = prepared(two[0], "a {class}")
    backbone = Shared().backbone_of(first.content, [foreign.config, later.config])
    encoded = [r.names.kind.text_files(r.content)[0].exists() for r in (first, later, foreign)]
    assert encoded == [True, True, False]
    for wrong in (encode_texts, lambda run, backbone: run.kind.open_engine(run, backbone)):
        with pytest.raises(RuntimeError) as refusal:
            wrong(foreign, backbone)  # type: ignore[arg-type]  # a checked denoiser
        assert all(repr(r.content.backbone_key) in str(refusal.value) for r in (first, foreign))
    assert not foreign.names.kind.text_files(foreign.content)[0].exists()
