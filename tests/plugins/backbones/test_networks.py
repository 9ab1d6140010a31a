"""Only what has weights is called, and one network predicts each sample at its own time."""

import copy
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.command import bench
from helpers.matrix import matrix
from helpers.pipelines import save_pipeline
from helpers.refusals import refused
from helpers.released import RELEASED, made

from bench.inputs.weights import resolve
from bench_plugins.backbones._pipelines.meta import build
from bench_plugins.backbones._weights.checkpoint import load_model
from bench_plugins.backbones._weights.components import cast
from bench_plugins.backbones.pipeline import PipelineDenoiser
from bench_plugins.backbones.pipeline_folder import FolderPipeline

SIDE = 16
wan_2 = pytest.mark.skipif(
    "WanPipeline" not in RELEASED, reason="this version of diffusers has no Wan 2.2"
)


def wan(**more: Any) -> Any:
    """Return a small pipeline of Wan 2.1, with `more` of what 2.2 has."""
    pipe = made("WanPipeline")
    parts = (pipe.tokenizer, pipe.text_encoder, pipe.vae, pipe.scheduler, pipe.transformer)
    return diffusers.WanPipeline(*parts, **more)


@wan_2
def test_wan_2_2_is_refused_in_a_line(tmp_path: Path) -> None:
    """In memory, and as a folder before anything is scored."""
    second = made("WanPipeline").transformer
    pipe, message = wan(transformer_2=second, boundary_ratio=0.875), "transformer_2"
    with refused(message):
        PipelineDenoiser(pipe, resolution=SIDE)
    pipe.save_pretrained(tmp_path / "wan")
    done = bench(
        *("run", "digits", "--backbone", tmp_path / "wan", "--resolution", SIDE, "--limit", 1),
        *("--strategy", "full", "--set", "draws=2", "--results", tmp_path / "results"),
    )
    assert done.refuses(message), done.err


@wan_2
@pytest.mark.parametrize("side", matrix([16, 32], [16]))
def test_a_time_per_token_is_predicted_in_batches_of_one_level(side: int) -> None:
    """At some sizes several times are spread over the picture; at others they do not fit."""
    own, other = (
        PipelineDenoiser(wan(), resolution=side),
        PipelineDenoiser(wan(expand_timesteps=True), resolution=side),
    )
    x_t = torch.randn(2, *own.latent_shape, generator=torch.Generator().manual_seed(0))
    prompts = own.encode_prompts(["a", "a longer prompt"])
    with torch.inference_mode():
        answers = [
            made.denoise(x_t, torch.tensor([100.0, 900.0]), prompts) for made in (own, other)
        ]
    torch.testing.assert_close(*answers)
    assert (own.learned.times, other.learned.times) == ("each", "one")


@wan_2
def test_a_default_size_that_is_not_square_is_refused_with_one_that_is() -> None:
    with refused("480 × 832", "--resolution 480"):
        PipelineDenoiser(wan())


class Prior(torch.nn.Module):
    """A network of another class that predicts at a time, like those of two-stage pipelines."""

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return the sample."""
        return sample


class WithSecond(diffusers.DiffusionPipeline):  # type: ignore[misc]  # Any to mypy
    """A pipeline with two networks."""

    def __init__(self, unet: Any, second: Any, vae: Any = None) -> None:
        super().__init__()
        self.register_modules(unet=unet, second=second, vae=vae)

    def __call__(self, prompt: list[str]) -> None:
        """Do nothing: it is refused before it is called."""

    encode_prompt = __call__


def test_any_second_network_is_found() -> None:
    unet = made("StableDiffusionPipeline").unet
    for second in (Prior(), copy.deepcopy(unet), made("Lumina2Pipeline").transformer):
        with refused("network, second"):
            PipelineDenoiser(WithSecond(unet, second))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("folder") / "pipeline")


def test_what_was_not_loaded_raises_when_it_is_called(folder: Path) -> None:
    """Each part, by each of its methods, before it is loaded and after it was freed."""
    backbone = FolderPipeline(resolve(str(folder)))
    for part in ("unet", "vae", "text_encoder"):
        for method in ("__call__", "forward", "encode", "decode"):
            with refused(f"{part}/"):
                getattr(backbone.pipe.components[part], method)(torch.zeros(1))
    backbone.encode_prompts(["a"])
    assert backbone.network is not None
    with refused("text_encoder/"):
        backbone.pipe.text_encoder(torch.zeros(1))
    x_t = torch.zeros(1, *backbone.latent_shape)
    backbone.denoise(x_t, torch.tensor([500]), backbone.encode_prompts(["a"]))


def test_an_encoder_that_is_called_with_the_network_is_refused_before_scoring(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its embeddings are cached, so it is not in memory then."""
    prepare = diffusers.StableDiffusionPipeline.prepare_extra_step_kwargs

    def encoding(self: Any, *arguments: Any, **keywords: Any) -> Any:
        self.text_encoder(torch.zeros(1, 77, dtype=torch.int64))
        return prepare(self, *arguments, **keywords)

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "prepare_extra_step_kwargs", encoding)
    copied = save_pipeline(tmp_path / "pipeline")
    with refused("text_encoder/"):
        FolderPipeline.check_weights(resolve(str(copied)))


@pytest.mark.skipif(
    "scale_factor_spatial" not in signature(diffusers.AutoencoderKLWan.__init__).parameters,
    reason="diffusers is older than the small Wan of the tests",
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tensors_that_a_class_keeps_in_float32_are_so_everywhere(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """In a folder that is loaded, on the meta device, and in a single file's network."""
    made("WanPipeline").save_pretrained(tmp_path)
    weights, wan = resolve(str(tmp_path)), diffusers.WanTransformer3DModel
    modules = [
        wan.from_pretrained(tmp_path, subfolder="transformer", torch_dtype=dtype),
        load_model(weights, "transformer", wan, dtype, "cpu"),
        build(weights, (), dtype, frozenset()).pipe.transformer,
        cast(wan.from_pretrained(tmp_path, subfolder="transformer"), dtype),
    ]
    dtypes = [{name: p.dtype for name, p in module.named_parameters()} for module in modules]
    assert {*dtypes[0].values()} == {dtype, torch.float32}
    assert all(other == dtypes[0] for other in dtypes)
