"""A model that does not fit its noise levels or images is found without labels, once per run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command import bench
from helpers.damage import TINY
from helpers.matrix import matrix
from helpers.pipelines import altered
from helpers.refusals import warned

import bench as toolkit
from bench.contracts.levels import Levels, answer_of, diffusion_levels
from bench.engine import sanity
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.sanity import ModelFit, _affine_errors, _errors_at, affordable, check_fit
from bench.inputs.pixels import decode
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare

LINEAR = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
WRONG: dict[str, Mapping[str, Any]] = {
    "sample": {"prediction_type": "sample"},
    "velocity": {"prediction_type": "v_prediction"},
    "linear betas": LINEAR,
    "other ends of the betas": {"beta_start": 0.0001, "beta_end": 0.02},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "500 steps": {"num_train_timesteps": 500},
}


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    run = prepare(make_config({"dataset": "digits", "backbone": "random"}))
    return [decode(sample.image) for sample in run.samples(run.sample_ids[:8])]


@torch.inference_mode()
def fit_of(
    backbone: Any, pictures: list[Any], text: str | None = None, scaled: bool = True
) -> ModelFit:
    latents = backbone.encode_images(pictures).float()
    prompt = backbone.encode_null() if text is None else backbone.encode_prompts([text])
    fit = check_fit(backbone, latents, prompt, 5, scaled)
    assert fit is not None
    return fit


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_scaled_times_are_whole_where_those_of_the_model_are(dtype: type) -> None:
    times: list[float] = []

    class Told:
        levels = replace(
            diffusion_levels(np.linspace(0.9, 0.1, 10), "epsilon"), time=np.arange(10, dtype=dtype)
        )

        def denoise(self, x_t: torch.Tensor, t: torch.Tensor, _: Any) -> torch.Tensor:
            times.extend(t.tolist())
            return x_t

    model: Any = Told()
    latents, prompt = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1)
    _errors_at(model, latents, model.levels.rows(np.array([1, 3, 9])), prompt, 8)(0.6)
    assert times == pytest.approx([1, 2, 5] if dtype is np.int64 else [0.6, 1.8, 5.4])


@pytest.mark.parametrize("name", matrix(WRONG, ["linear betas"]))
def test_a_wrong_schedule_is_found(name: str, tmp_path: Path, pictures: list[Any]) -> None:
    backbone = toolkit.load_backbone(str(altered(tmp_path / "m", "scheduler", WRONG[name])))
    assert fit_of(backbone, pictures[:4]).problem is not None


@pytest.mark.parametrize("factor", matrix([3.0, 1 / 3], [3.0]))
def test_a_wrong_scaling_factor_is_found(
    factor: float, tmp_path: Path, pictures: list[Any]
) -> None:
    right = json.loads((TINY / "vae" / "config.json").read_text())["scaling_factor"]
    folder = altered(tmp_path / "m", "vae", {"scaling_factor": factor * right})
    problem = fit_of(toolkit.load_backbone(str(folder)), pictures[:4], scaled=False).problem
    assert problem is not None and "linear guess" in problem


@pytest.mark.long
@pytest.mark.parametrize("text", matrix([None, "a photo of a dog", "xyzzy"], ["xyzzy"]))
def test_the_right_model_fits_with_any_prompt(text: str | None, pictures: list[Any]) -> None:
    backbone = toolkit.load_backbone("tiny-digits")
    assert fit_of(backbone, pictures, text).problem is None
    assert fit_of(backbone, pictures[:4], text).problem is None
    for picture in pictures:
        assert fit_of(backbone, [picture], text, scaled=False).problem is None


@pytest.mark.parametrize("dtype", matrix(["float32", "bfloat16"], ["float32"]))
def test_noise_in_the_weights_and_rounding_are_no_reason(dtype: str, pictures: list[Any]) -> None:
    backbone = toolkit.load_backbone("tiny-digits", dtype=dtype)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in backbone.network.parameters():
            scale = 0.1 * weights.float().std().nan_to_num()
            weights.add_(scale * torch.randn(weights.shape, generator=noise))
    assert fit_of(backbone, pictures[:4]).problem is None


TEXTS = ("a photo of a dog", "seven", "a handwritten digit two", "xyzzy", "a")  # of unequal lengths


@torch.inference_mode()
def effect_on(
    backbone: Any,
    pictures: list[Any],
    count: int = 5,
    batch_size: int = 64,
    scaled: bool = False,
    texts: Sequence[str] = TEXTS,
) -> ModelFit:
    prompts = backbone.encode_prompts(list(texts[:count]))
    latents = backbone.encode_images(pictures[:1]).float()
    fit = check_fit(backbone, latents, prompts, batch_size, scaled)
    assert fit is not None
    return fit


def weaken_prompts(backbone: Any, factor: float) -> None:
    """Scale both ways in which a text reaches the network: cross-attention and the time."""
    with torch.no_grad():
        for name, weights in backbone.network.named_parameters():
            if "attn2.to_v" in name or name == "add_embedding.norm2.weight":
                weights.mul_(factor)


def same_embeddings(backbone: Any, _: float) -> None:
    encode = backbone.encode_prompts
    backbone.encode_prompts = lambda texts: encode([texts[0]] * len(texts))


@pytest.mark.parametrize(
    ("dead", "batch_size", "dtype"),
    matrix(
        [(weaken_prompts, 64, "float32"), (same_embeddings, 2, "bfloat16")],
        [(weaken_prompts, 64, "float32")],
    ),
)
def test_a_prompt_that_does_not_reach_the_network_is_found(
    dead: Any, batch_size: int, dtype: str, pictures: list[Any]
) -> None:
    backbone: Any = toolkit.load_backbone("tiny-digits", dtype=dtype)
    fit = effect_on(backbone, pictures, 5, batch_size)
    assert fit.problem is None and min(fit.effect) > 1e3 and "prompts change" in str(fit)
    dead(backbone, 0.0)
    fit = effect_on(backbone, pictures, 5, batch_size)
    assert max(fit.effect) < 10
    assert fit.problem is not None and "The prompt changes nothing" in fit.problem


def test_a_prompt_with_a_small_effect_is_no_reason(pictures: list[Any]) -> None:
    backbone: Any = toolkit.load_backbone("tiny-digits")
    weaken_prompts(backbone, 1e-3)
    fit = effect_on(backbone, pictures)
    assert fit.problem is None and 1e-6 < fit.change < 1e-3


def test_a_network_that_ignores_the_time_is_noted(pictures: list[Any]) -> None:
    backbone: Any = toolkit.load_backbone("tiny-digits")
    assert not effect_on(backbone, pictures, scaled=True).ignores_time
    with torch.no_grad():
        for weights in backbone.network.time_embedding.linear_2.parameters():
            weights.zero_()
    fit = effect_on(backbone, pictures, scaled=True)
    assert fit.ignores_time and set(fit.elsewhere) == {1.0}
    assert replace(fit, guess=0.5).problem == (
        "Note: the network ignores the time: its errors at all scaled times are equal."
    )


def test_a_run_says_it_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.running.checks._budget", lambda run, engine: 56.0)
    backbone: Any = toolkit.load_backbone("tiny-digits")
    weaken_prompts(backbone, 0.0)
    with warned("prompt", kind=UserWarning):
        run = toolkit.run(
            "digits", backbone=backbone, limit=2, params={"draws": 4}, strategy="full",
            results=tmp_path, progress=False, batch_size=64,
        )  # fmt: skip
    words = "The prompt changes nothing"
    assert any(words in text for text in run.summary.warnings or ())
    assert words in " ".join(bench("show", run.folder).out.split())


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_no_affine_guess_is_better_than_the_yardstick(kind: str) -> None:
    """Least squares of the target on x_t, for Gaussian latents, gives the same error."""
    rng, alpha = np.random.default_rng(0), np.array([0.95, 0.7, 0.3])
    sigma = np.sqrt(1 - alpha**2)
    levels = Levels(alpha, sigma, np.arange(3), *answer_of(kind, alpha, sigma))
    latents = torch.from_numpy(rng.normal(0.4, 1.7, (4, 1, 150, 150)))
    expected = _affine_errors(levels, latents)
    x_0 = latents.numpy().ravel()
    eps = rng.normal(size=x_0.size)
    for row in range(3):
        x_t = alpha[row] * x_0 + sigma[row] * eps
        target = levels.p[row] * x_0 + levels.q[row] * eps
        slope, offset = np.polyfit(x_t, target, 1)
        found = np.mean((target - slope * x_t - offset) ** 2)
        assert found == pytest.approx(expected[row], rel=0.02)


def test_what_is_affordable() -> None:
    assert affordable(4.9, 10) == (0, False, 0)
    assert affordable(5, 10) == (1, False, 0)
    assert affordable(54, 10) == (8, False, 0)
    assert affordable(55, 10) == (8, False, 2)
    assert affordable(139, 10) == (8, False, 5)
    assert affordable(140, 10) == (4, True, 0)
    assert affordable(155, 10) == (4, True, 2)
    assert affordable(1e9, 10) == (8, True, 5)
    assert affordable(1e9, 3) == (8, True, 3)
    assert affordable(1e9, 1) == (8, True, 0)


def test_pictures_of_one_colour_are_not_judged() -> None:
    backbone: Any = toolkit.load_backbone("tiny-digits")
    latents = torch.zeros(8, *backbone.latent_shape)
    assert check_fit(backbone, latents, backbone.encode_null(), 5, True) is None


ARGUMENTS = ("--limit", 20, "--strategy", "full", "--set", "draws=40", "--results")


@pytest.mark.long
def test_a_model_that_fits_gives_no_warning_and_the_check_takes_two_per_cent_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    denoise, check_fit, rows = CheckedDenoiser.denoise, sanity.check_fit, [0]

    def counted(*given: Any) -> Any:
        before = rows[0]
        with pytest.MonkeyPatch.context() as within:
            within.setattr(CheckedDenoiser, "denoise", counting)
            fit = check_fit(*given)
        assert rows[0] > before
        return fit

    def counting(self: CheckedDenoiser, x_t: torch.Tensor, *more: Any) -> torch.Tensor:
        rows[0] += len(x_t)
        return denoise(self, x_t, *more)

    monkeypatch.setattr("bench.engine.sanity.check_fit", counted)
    done = bench("run", "digits", *ARGUMENTS, tmp_path / "r", "--json")
    assert 0 < rows[0] <= 0.02 * done.json["cost"]["evaluations"]
    assert done.code == 0 and "warnings" not in done.json
    assert "linear guess" not in done.err and "noise schedule" not in done.err
    measured = rows[0]
    assert bench("run", "digits", *ARGUMENTS, tmp_path / "r", "--fresh").code == 0
    assert rows[0] == measured, "what was measured is remembered"
