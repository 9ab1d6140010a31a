"""A pipeline of which nothing is declared, with trained weights: what is wrong with it is found."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers.damage import TINY, says
from helpers.families import save
from helpers.matrix import matrix
from helpers.refusals import refused

from bench.inputs.weights import resolve
from bench_plugins.backbones._pipelines.probing import (
    PROBED_STEPS,
    check_assumptions,
    check_shift,
    check_steps,
)
from bench_plugins.backbones._pipelines.slots import Slots
from bench_plugins.backbones.families import PixArt
from bench_plugins.backbones.pipeline import PipelineDenoiser
from bench_plugins.backbones.pipeline_folder import FolderPipeline


class Undeclared(diffusers.StableDiffusionPipeline):  # type: ignore[misc]  # Any to mypy
    """Stable Diffusion's pipeline under a name of which nothing is declared."""


@pytest.fixture(scope="module")
def pipe() -> Any:
    made = Undeclared.from_pretrained(
        TINY, safety_checker=None, requires_safety_checker=False, torch_dtype=torch.float32
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def probed(pipe: Any) -> PipelineDenoiser:
    return PipelineDenoiser(pipe)


def other_levels(denoiser: PipelineDenoiser) -> None:
    own = denoiser.levels
    alpha, sigma = np.sqrt(1 - own.sigma**1.5), own.sigma**0.75
    denoiser.levels = replace(own, alpha=alpha, sigma=sigma)


def other_mean(denoiser: PipelineDenoiser) -> None:
    own = denoiser.learned.normalisation
    wrong = replace(own, shift=own.shift + 3 / denoiser.pipe.vae.config.scaling_factor)
    denoiser.learned = replace(denoiser.learned, normalisation=wrong)


def turned(name: str, scale: float) -> Callable[[PipelineDenoiser], None]:
    def apply(denoiser: PipelineDenoiser) -> None:
        own = denoiser.levels
        columns = ("p", "q") if name == "target" else ("time",)
        changed: dict[str, Any] = {column: scale * getattr(own, column) for column in columns}
        denoiser.levels = replace(own, **changed)

    return apply


WRONG: dict[str, tuple[Callable[[PipelineDenoiser], None], str]] = {
    "the sign": (turned("target", -1), "clean sample"),
    "the scale of the time": (turned("time", 1e-3), "scheduler"),
    "the noise levels": (other_levels, "scheduler"),
    "the mean of the autoencoder": (other_mean, "loses"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_found(case: str, probed: PipelineDenoiser) -> None:
    change, named = WRONG[case]
    change(probed)
    with refused(named):
        check_assumptions(probed, probed.runner, "half")


def test_a_reversed_table_is_found_by_the_error_of_the_clean_latent(
    probed: PipelineDenoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the steps are not asked."""
    monkeypatch.setattr("bench_plugins.backbones._pipelines.probing.check_steps", lambda *a: None)
    turned = probed.levels.rows(np.arange(len(probed.levels))[::-1].copy())
    probed.levels = turned
    with refused("noise"):
        check_assumptions(probed, probed.runner, "half")


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save("sd3", tmp_path_factory.mktemp("probing") / "sd3")


def schedule_of(denoiser: PipelineDenoiser) -> dict[str, Any]:
    return denoiser.runner.first_latents(PROBED_STEPS).schedule or {}


@pytest.mark.parametrize("shift", matrix([1.0, 2.5, 6.0], [2.5]))
def test_a_wrong_shift_is_found(flow: Any, shift: float) -> None:
    """SD 3's scheduler shifts by 3, twice; the same is told by its steps."""
    denoiser = PipelineDenoiser(flow, resolution=16)
    check_shift(flow.scheduler, denoiser.levels, schedule_of(denoiser), "it")
    check_steps(flow.scheduler, denoiser.levels, schedule_of(denoiser), "it")
    even = denoiser.levels.sigma / (3 - 2 * denoiser.levels.sigma)
    sigma = shift * even / (1 + (shift - 1) * even)
    wrong = replace(denoiser.levels, alpha=1 - sigma, sigma=sigma, time=1000 * sigma)
    with refused("shift 3"):
        check_shift(flow.scheduler, wrong, schedule_of(denoiser), "it")


def test_a_flow_of_the_wrong_sign_or_time_is_found(flow: Any) -> None:
    denoiser = PipelineDenoiser(flow, resolution=16)
    levels = denoiser.levels
    for wrong in (replace(levels, p=-levels.p, q=-levels.q), replace(levels, time=levels.sigma)):
        with refused("alpha and sigma"):
            check_steps(flow.scheduler, wrong, schedule_of(denoiser), "it")


def test_a_pipeline_that_takes_one_time_per_call_is_found(pipe: Any) -> None:
    class OneTime(Undeclared):
        def progress_bar(self, iterable: Any = None, total: Any = None) -> Any:
            assert self.scheduler.timesteps.ndim == 1
            return super().progress_bar(iterable, total)

    made = OneTime(**pipe.components, requires_safety_checker=False)
    denoiser = PipelineDenoiser(made)
    assert denoiser.network and denoiser.learned.times == "one"
    own = PipelineDenoiser(pipe)
    x_t = torch.randn(3, *own.latent_shape, generator=torch.Generator().manual_seed(0))
    time = torch.tensor([10, 700, 10])
    with torch.inference_mode():
        prompts = own.encode_prompts(["one", "two", "three"])
        answers = [made.denoise(x_t, time, prompts) for made in (denoiser, own)]
    torch.testing.assert_close(*answers)


def test_t5_is_in_float32_also_if_the_pipeline_is_loaded_as_a_whole(tmp_path: Path) -> None:
    """It overflows in float16."""
    save("sigma", tmp_path / "own")
    shutil.copytree(tmp_path / "own", tmp_path / "other")
    says("model_index.json", _class_name="PixArtSigmaPAGPipeline")(tmp_path / "other")
    own = PixArt(resolve(str(tmp_path / "own")), dtype="float16")
    other = FolderPipeline(resolve(str(tmp_path / "other")), dtype="float16")
    dtypes = {name: getattr(other.pipe, name).dtype for name in ("text_encoder", "transformer")}
    assert dtypes == {"text_encoder": torch.float32, "transformer": torch.float16}
    texts = ["one", "some words"]
    torch.testing.assert_close(other.encode_prompts(texts), own.encode_prompts(texts))
    assert own.encode_prompts(texts)["0.0"].dtype == torch.float16  # type: ignore[index]  # a mapping


ENCODINGS: dict[str, tuple[Callable[[list[str]], Any], str]] = {
    "a list of layers": (
        lambda texts: [torch.zeros(len(texts), 3, 2)] * 5,
        "got 5 and 5 values of Tensor",
    ),
    "lists of images": (lambda texts: [[torch.zeros(3, 2)] for _ in texts], "values of list"),
    "ends of texts": (lambda texts: torch.arange(len(texts) + 1), "[2], [2] and [3]"),
}


@pytest.mark.parametrize("case", ENCODINGS)
def test_an_encoding_without_a_row_per_text_is_named(case: str) -> None:
    """As BriaFibo and Kandinsky 5 return it."""
    made, named = ENCODINGS[case]
    with refused(named):
        Slots.inferred(lambda texts: [made(texts)], "It")


def test_a_text_that_is_padded_alone_is_refused() -> None:
    """As NucleusMoE pads it to a multiple of 8 tokens; an odd length has a mask."""

    def encode(texts: list[str]) -> list[Any]:
        lengths = [min(len(text), 12) for text in texts]
        longest = -(-max(lengths) // 2) * 2 if max(lengths) > 1 else 1
        mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
        return [(torch.zeros(len(texts), longest, 3), None if mask.all() else mask)]

    slots = Slots.inferred(encode, "It")
    assert slots.masked and slots.tree(["four"], encode)["0.0"].shape == (1, 12, 3)
    with refused("'odd'"):
        slots.tree(["odd"], encode)


def test_levels_that_are_unknown_are_refused_before_a_call(pipe: Any) -> None:
    """As those of SanaSprint, whose loop leaves out the last time."""
    other = copy.copy(pipe)
    vars(other)["scheduler"] = diffusers.SCMScheduler()
    with refused("SCMScheduler"):
        PipelineDenoiser(other)


def test_levels_that_are_spaced_unevenly_are_refused(flow: Any) -> None:
    """As Mochi's."""
    denoiser, uneven = PipelineDenoiser(flow, resolution=16), np.linspace(1, 0.1, PROBED_STEPS) ** 2
    with refused("unevenly"):
        check_shift(flow.scheduler, denoiser.levels, {"sigmas": uneven}, "it")


def test_latents_drawn_in_another_way_are_refused(pipe: Any) -> None:
    class OwnNoise(Undeclared):
        def prepare_latents(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
            return torch.randn(1, 4, 8, 8)

    made = OwnNoise(**pipe.components, requires_safety_checker=False)
    with refused("latents"):
        PipelineDenoiser(made)


def test_a_pipeline_that_reads_prompts_beside_their_encoding_is_refused(pipe: Any) -> None:
    """As GlmImage does, whose second model makes tokens of the prompt."""

    class TwoReadings(Undeclared):
        def check_inputs(self, *arguments: Any, **keywords: Any) -> None:
            self.text_encoder(torch.zeros(1, 8, dtype=torch.int64))

    altered = TwoReadings(**pipe.components, requires_safety_checker=False)
    with refused("text_encoder reads prompts"):
        PipelineDenoiser(altered)
