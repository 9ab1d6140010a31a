"""The training of the shipped backbones: a few steps of it, stopped and gone on with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.places import ROOT
from safetensors.numpy import load_file

from bench_plugins.training import card, data, judging, loop, pipeline
from bench_plugins.training.data import read_captions, train_tokenizer
from bench_plugins.training.denoiser import TextDenoiser, bake
from bench_plugins.training.loop import Phase
from bench_plugins.training.recipes import RECIPES

IMAGES = 100  # of each split


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """A recipe of minutes, cut to seconds, and taught as the land is."""
    attention, prompts, *_ = RECIPES["landuse"].contrasts
    recipe = dataclasses.replace(
        RECIPES["digits"],
        vae_steps=3,
        views=2,
        steps=4,
        batch=8,
        judge_steps=2,
        validate_every=2,
        validation_images=10,
        validation_draws=2,
        loss_draws=2,
        vae_channels=(8, 8, 16),
        unet_channels=(16, 32),
        text_width=16,
        head_width=8,
        down_attention=(False, False),
        late_text=True,
        standardised=True,
        contrasts=(
            dataclasses.replace(attention, steps=2, denoised=2, fitted=4),
            dataclasses.replace(prompts, steps=2, denoised=2, scored=3, fitted=2),
        ),
        samples=(1, 2),
        keep=(3, 1),
    )
    read = cache(data.read)  # three trainings decode the same images

    def some(*place: Any) -> data.LabelledImages:
        part = read(*place)
        return data.LabelledImages(part.images[:IMAGES], part.labels[:IMAGES], part.ids[:IMAGES])

    with pytest.MonkeyPatch.context() as shortened:
        shortened.setattr(card, "SAMPLE_STEPS", 2)
        shortened.setattr(data, "read", some)
        shortened.setitem(RECIPES, "digits", recipe)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training writes that nothing stops."""
    out = tmp_path_factory.mktemp("trained") / "whole"
    figures = pipeline.train_backbone("digits", None, out, seed=0, test=False)
    assert "test" not in figures and figures["validation"]["n"] == IMAGES // 10
    return out


def weights(folder: Path) -> dict[str, np.ndarray]:
    parts = sorted(folder.rglob("*.safetensors"))
    assert len(parts) == 3
    return {f"{p.parent.name}/{k}": v for p in parts for k, v in load_file(p).items()}


def test_a_stopped_training_goes_on_to_the_same_weights(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(phase: Phase, **values: object) -> None:
        if phase.name == "denoiser":
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(Phase, "log", stop)
        pipeline.train_backbone("digits", None, tmp_path / "stopped", seed=0, test=False)
    pipeline.train_backbone("digits", None, tmp_path / "stopped", seed=0, test=False)
    first, second = weights(trained), weights(tmp_path / "stopped")
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)

    text = (trained / "README.md").read_text()
    assert "Trained on digits/train" in text and "Discriminative fine-tuning" in text
    log = (trained / "training.jsonl").read_text().splitlines()
    assert {json.loads(line)["phase"] for line in log} >= {"denoiser", "contrast-1", "contrast-2"}


@pytest.fixture
def tiny(tmp_path: Path) -> TextDenoiser:
    """An untrained denoiser of the land's shape, with gains that are not one."""
    captions = read_captions(RECIPES["landuse"])
    recipe = dataclasses.replace(RECIPES["landuse"], unet_channels=(8, 16, 32), norm_groups=4)
    tokenizer = train_tokenizer(captions, recipe.text_length, tmp_path / "tokenizer")
    torch.manual_seed(0)
    model = TextDenoiser(recipe, tokenizer).eval().requires_grad_(False)
    for parameter in model.unet.parameters():
        parameter.mul_(torch.rand_like(parameter) + 0.5)
    model.unet.add_embedding.norm2.bias.normal_()
    model.mask_early_text()
    return model


def test_a_unet_in_two_halves_is_the_same_unet(tiny: TextDenoiser) -> None:
    x_t, t = torch.randn(3, 8, 16, 16), torch.tensor([5, 300, 990])
    text = tiny.encode(["a forest", "a beach"])
    image, prompt = torch.tensor([0, 0, 2, 1]), torch.tensor([0, 1, 1, 0])
    halves = tiny.second_half(tiny.first_half(x_t, t).rows(image), text[prompt])
    torch.testing.assert_close(halves, tiny(x_t[image], t[image], text[prompt]))
    assert (halves[0] - halves[1]).abs().max() > 1e-4  # the prompt is heard


def test_baked_kernels_compute_the_same(tiny: TextDenoiser) -> None:
    inputs = torch.randn(2, 8, 16, 16), torch.tensor([5, 300]), tiny.encode(["a forest", "x"])
    before = tiny(*inputs)
    standardised = [name for name in tiny.unet.state_dict() if "parametrizations" in name]
    assert standardised
    bake(tiny.unet)
    assert not [name for name in tiny.unet.state_dict() if "parametrizations" in name]
    torch.testing.assert_close(tiny(*inputs), before)


def test_what_it_writes_is_a_backbone(trained: Path, tmp_path: Path) -> None:
    import bench

    summary = bench.run(
        "digits",
        backbone=str(trained),
        strategy="full",
        params={"draws": 1},
        limit=10,
        results=str(tmp_path / "results"),
    )
    assert summary["dataset"]["n_samples"] == 10


def test_shipped_weights_are_small_and_open() -> None:
    folder = ROOT / "plugins" / "bench_plugins" / "backbones" / "weights" / "tiny_digits"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    assert "not zero-shot" in (folder / "README.md").read_text()


def test_the_tokenizer_takes_any_text(tmp_path: Path) -> None:
    for name, recipe in RECIPES.items():
        captions = read_captions(recipe)
        tokenizer = train_tokenizer(captions, 32, tmp_path / name)
        for text in [*captions.prompts, "Zürich – 東京", "a\tb"]:
            assert tokenizer.unk_token_id not in tokenizer(text).input_ids[1:-1]
        assert max(len(tokenizer(text).input_ids) for text in captions.prompts) <= 32


def test_prompts_of_the_training_are_those_of_the_toolkit() -> None:
    import bench

    for recipe in RECIPES.values():
        assert read_captions(recipe).prompts == bench.prompts(recipe.dataset)


def test_watching_by_hand() -> None:
    errors = np.zeros((1, 4, 3), np.float32)
    errors[0, :, 0], errors[0, :, 2] = 0.5, 0.2
    errors[0, 0, 1] = 0.9  # only the first draw speaks against prompt 1
    assert judging.full(errors)[0] == 2
    predictions, evaluations = judging.adaptive(errors, (2, 4), (2, 1))
    assert predictions[0] == 1 or predictions[0] == 2
    assert evaluations == 3 * 2 + 2 * 2


def test_a_log_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal there is no bar: a line a checkpoint, here the last step's."""
    phase = Phase("denoiser", 3, 1e-3, tmp_path, seed=0)
    assert list(phase.steps()) == [0, 1, 2] and list(phase.steps()) == []
    assert capsys.readouterr().err == "denoiser: 3 of 3 steps, 0.0 min left\n"
