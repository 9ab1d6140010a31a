"""Pipelines as their own calls run them: distilled networks, half precision, adapters.

The pipelines are small and random, of the real classes.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.command import bench
from helpers.damage import says
from helpers.families import save
from helpers.matrix import matrix
from helpers.pipelines import UNETS, save_pipeline
from helpers.refusals import refused, warned
from PIL import Image
from safetensors.torch import save_file

from bench.discovery.loading import load_plugins
from bench.discovery.targets import make
from bench.inputs.weights import Weights, resolve
from bench.running.parts.model import family_of
from bench_plugins.backbones._checkpoint import warn_of_adapters
from bench_plugins.backbones.families import StableDiffusion

TEXT = "a photo of a cat"
LCM = "LatentConsistencyModelPipeline"


def save_distilled(folder: Path, pipeline: str) -> Path:
    """Save a small pipeline whose UNet has a `time_cond_proj_dim`."""
    if pipeline == "StableDiffusionXLPipeline":
        pipe = save("sdxl", folder)
        torch.manual_seed(2)
        config = {k: v for k, v in pipe.unet.config.items() if not k.startswith("_")}
        unet = diffusers.UNet2DConditionModel(**{**config, "time_cond_proj_dim": 6})
        unet.save_pretrained(folder / "unet")
        return folder
    save_pipeline(folder, "sd15")
    unet = diffusers.UNet2DConditionModel(**UNETS["sd15"], time_cond_proj_dim=7)
    unet.save_pretrained(folder / "unet")
    index = {
        "_class_name": pipeline,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "LCMScheduler" if pipeline == LCM else "DDPMScheduler"],
        **{name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")},
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    if pipeline == LCM:
        says("scheduler/scheduler_config.json", _class_name="LCMScheduler")(folder)
    return folder


def first_call(pipe: Any, **asked: Any) -> tuple[dict[str, Any], torch.Tensor]:
    """Run a pipeline; return what its network was given at first, and what it answered."""
    network = getattr(pipe, "transformer", None) or pipe.unet
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    forward = network.forward

    def recorded(*given: Any, **named: Any) -> Any:
        answer = forward(*given, **named)
        calls.append(({**named, "given": given}, answer[0].clone()))
        return answer

    network.forward = recorded
    pipe.set_progress_bar_config(disable=True)
    pipe(TEXT, num_inference_steps=1, output_type="latent", **asked)
    return calls[0]


def backbone_of(folder: Path, **settings: Any) -> Any:
    registry = load_plugins().backbones
    spec = registry.get(family_of(str(folder), None) or "")
    return make(spec, resolve(str(folder)), **settings)


@pytest.mark.parametrize(
    ("pipeline", "told"),
    matrix(
        [("StableDiffusionPipeline", 7.5), (LCM, 8.5), ("StableDiffusionXLPipeline", 5.0)],
        [(LCM, 8.5)],
    ),
)
def test_a_distilled_unet_is_told_the_guidance_of_its_pipeline(
    pipeline: str, told: float, tmp_path: Path
) -> None:
    folder = save_distilled(tmp_path / "distilled", pipeline)
    pipe = getattr(diffusers, pipeline).from_pretrained(folder)
    for strength in (None, 2.0):
        asked = {} if strength is None else {"guidance_scale": strength}
        given, answer = first_call(pipe, **asked)
        made = backbone_of(folder, strength=strength)
        x_t, time = given["given"]
        with torch.inference_mode():
            found = made.denoise(x_t, time.reshape(1), made.encode_prompts([TEXT]))
        torch.testing.assert_close(found, answer, rtol=0, atol=1e-5 * float(answer.abs().max()))
    assert made.weight_parameters(resolve(str(folder))) == {"strength": told}


@pytest.mark.long
def test_a_run_records_the_guidance_and_a_plain_network_takes_none(tmp_path: Path) -> None:
    folder = save_distilled(tmp_path / "distilled", LCM)
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), (90 * number, 50, 9)).save(
            tmp_path / "pictures" / name / "1.png"
        )
    command = ("run", tmp_path / "pictures", "--strategy", "full", "--set", "draws=2", "--json",
               "--batch-size", 16)  # fmt: skip
    parameters = []
    for more in ((), ("--set", "strength=8.5"), ("--set", "strength=3")):
        done = bench(
            *command, "--backbone", f"{folder}{os.sep}", *more, "--results", tmp_path / "r"
        )
        assert done.code == 0, done.err
        manifest = json.loads((Path(done.json["results_dir"]) / "manifest.json").read_text())
        parameters.append(manifest["identity"]["backbone"]["parameters"])
    assert [found["strength"] for found in parameters] == [8.5, 8.5, 3.0]
    plain = save_pipeline(tmp_path / "plain", "sd15")
    asked = (*command, "--backbone", "sd15", "--weights", plain, "--results", tmp_path / "r")
    refused = bench(*asked, "--set", "strength=3")
    assert refused.refuses("guidance")
    done = bench(*asked)
    assert done.code == 0, done.err
    manifest = json.loads((Path(done.json["results_dir"]) / "manifest.json").read_text())
    assert "strength" not in manifest["identity"]["backbone"]["parameters"]


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_distilled(tmp_path_factory.mktemp("pipelines") / "sd", "StableDiffusionPipeline")


@pytest.mark.parametrize("width", [True, 0, 2, "8", -4])
def test_a_width_that_no_embedding_has_is_refused(width: Any, distilled: Path) -> None:
    says("unet/config.json", time_cond_proj_dim=width)(distilled)
    with refused("unet/"):
        StableDiffusion(resolve(str(distilled)))


def test_the_pipeline_s_class_is_checked(tmp_path: Path) -> None:
    folder = save_distilled(tmp_path / "distilled", "StableDiffusionInpaintPipeline")
    done = bench("run", "digits", "--backbone", "sd15", "--weights", folder, "--dry-run")
    assert done.code == 2
    assert "has _class_name 'StableDiffusionInpaintPipeline'" in done.err


def halved(kind: str, folder: Path) -> Any:
    """Return a family's pipeline in bfloat16, as a run has it."""
    name = type(save(kind, folder)).__name__
    return getattr(diffusers, name).from_pretrained(folder, torch_dtype=torch.bfloat16)


@pytest.mark.parametrize("kind", matrix(["flux", "schnell"], ["schnell"]))
def test_flux_in_bfloat16_is_told_the_time_as_its_pipeline_tells_it(
    kind: str, tmp_path: Path
) -> None:
    pipe = halved(kind, tmp_path / kind)
    made = backbone_of(tmp_path / kind, dtype="bfloat16", resolution=16)
    tokens = {"max_sequence_length": 256} if kind == "schnell" else {}
    given, answer = first_call(pipe, height=16, width=16, sigmas=[0.7], **tokens)
    sigma = pipe.scheduler.sigmas[:1]
    x_t = pipe._unpack_latents(given["hidden_states"], 16, 16, 2)
    # transformers 4.50 keeps a part of T5 in float32 in the pipeline, so its text is taken.
    text = {**made.encode_prompts([TEXT]), "0.0": given["encoder_hidden_states"]}
    with torch.inference_mode():
        found = made.denoise(x_t, sigma, text)
    wanted = pipe._unpack_latents(answer, 16, 16, 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def adds(name: str, **tensors: torch.Tensor) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        save_file(tensors, folder / name)

    return apply


LORA = {"unet.down_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 8)}
TOKEN = {"<my-cat>": torch.zeros(2, 48)}
BLOCK = {f"model.diffusion_model.{n}.weight": torch.zeros(2, 2) for n in range(20)}


@pytest.mark.parametrize(
    ("name", "tensors", "warned"),
    [
        ("pytorch_lora_weights.safetensors", LORA, True),
        ("unet/adapter_model.safetensors", LORA, True),
        ("style/learned_embeds.safetensors", TOKEN, True),
        ("v1-5-pruned.safetensors", BLOCK, False),
        ("safety_checker/model.safetensors", BLOCK, False),
    ],
)
def test_an_adapter_that_is_not_applied_is_named(
    name: str, tensors: dict[str, torch.Tensor], warned: bool, tmp_path: Path
) -> None:
    (tmp_path / "unet").mkdir()
    adds(name, **tensors)(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_adapters(Weights(str(tmp_path), None, ""), {"unet"})
    found = [str(warning.message) for warning in caught if name in str(warning.message)]
    assert len(found) == warned and all("They are not applied" in text for text in found)


def test_a_pickled_adapter_is_named_by_its_name(tmp_path: Path) -> None:
    folder = save_pipeline(tmp_path / "plain", "sd15")
    (folder / "pytorch_lora_weights.bin").write_bytes(b"a pickle")
    with warned("pytorch_lora_weights.bin", kind=Warning):
        StableDiffusion.check_weights(resolve(str(folder)))
