"""Pipelines as their own calls run them: distilled networks, half precision, adapters.

The pipelines are small and random, of the real classes.
"""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.command import bench
from helpers.damage import says
from helpers.families import save
from helpers.matrix import matrix
from helpers.pipelines import save_pipeline
from helpers.refusals import refused
from helpers.released import made as made_here
from helpers.weights import backbone_of

from bench.inputs.weights import resolve
from bench_plugins.backbones.families import StableDiffusion

TEXT = "a photo of a cat"


def save_distilled(folder: Path) -> Path:
    """Save a small pipeline whose UNet has a `time_cond_proj_dim`."""
    made_here("LatentConsistencyModelPipeline").save_pretrained(folder)
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


def test_a_distilled_unet_is_told_the_guidance_of_its_pipeline(tmp_path: Path) -> None:
    """At a strength that is set, too; `test_pipeline` has others at their own."""
    folder = save_distilled(tmp_path / "distilled")
    pipe = diffusers.LatentConsistencyModelPipeline.from_pretrained(folder)
    for strength in (None, 2.0):
        asked = {} if strength is None else {"guidance_scale": strength}
        given, answer = first_call(pipe, **asked)
        made = backbone_of(folder, strength=strength)
        x_t, time = given["given"]
        with torch.inference_mode():
            found = made.denoise(x_t, time.reshape(1), made.encode_prompts([TEXT]))
        torch.testing.assert_close(found, answer, rtol=0, atol=1e-5 * float(answer.abs().max()))
    assert made.weight_parameters(resolve(str(folder))) == {"strength": 8.5}


@pytest.mark.long
def test_what_fits_no_distilled_network_is_refused(tmp_path: Path) -> None:
    folder = save_distilled(tmp_path / "distilled")
    for width in (True, 0, "8"):
        says("unet/config.json", time_cond_proj_dim=width)(folder)
        with refused("unet/"):
            StableDiffusion(resolve(str(folder)))
    says("model_index.json", _class_name="StableDiffusionInpaintPipeline")(folder)
    done = bench("run", "digits", "--backbone", "sd15", "--weights", folder, "--dry-run")
    assert done.refuses("'StableDiffusionInpaintPipeline'")
    plain = save_pipeline(tmp_path / "plain", "sd15")
    told = ("run", "digits", "--backbone", "sd15", "--weights", plain, "--set", "strength=3")
    assert bench(*told, "--dry-run").refuses("guidance")


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
