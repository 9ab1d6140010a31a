"""What every pipeline must be, whatever it was made from; one line says what it is not."""

from collections.abc import Callable
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from helpers.damage import TINY
from helpers.pipeline_classes import PAGE, START, outcome, rows
from helpers.refusals import refused
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from bench_plugins.backbones._pipelines.gate import supported
from bench_plugins.backbones._pipelines.runner import token_problem
from bench_plugins.backbones.pipeline import PipelineDenoiser

OUTCOMES = {
    "StableDiffusionPipeline": "family `sd`",
    "KolorsPipeline": "declared",
    "StableDiffusionPAGPipeline": "tried",
    "StableDiffusionImg2ImgPipeline": "refused: it takes image",
    "StableDiffusionInpaintPipeline": "refused: it takes image",
    "StableDiffusionControlNetPipeline": "refused: it needs controlnet",
    "StableDiffusionAdapterPipeline": "refused: it needs adapter",
    "StableDiffusionPanoramaPipeline": "refused: it predicts overlapping views",
    "TextToVideoZeroPipeline": "refused: it moves the latents of frames between its steps",
    "StableDiffusionAttendAndExcitePipeline": "refused: it needs token_indices",
    "SemanticStableDiffusionPipeline": "refused: it does not encode prompts",
    "Kandinsky3Pipeline": "refused: it has no vae",
    "IFPipeline": "refused: it has no vae",
    "StableCascadeDecoderPipeline": "refused: it has no transformer and no unet",
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_a_class_comes_to(name: str) -> None:
    assert outcome(getattr(diffusers, name)).startswith(OUTCOMES[name])


@pytest.mark.slow
def test_the_table_on_the_page_is_of_the_rules() -> None:
    head, *lines = rows()
    shown = PAGE.read_text("utf-8").partition(START)[2].strip().splitlines()
    if shown[0] != head:
        pytest.skip("the page is of another version of diffusers")
    assert shown[: len(lines) + 1] == [head, *lines]


@cache
def parts() -> Any:
    """Return the components of a small model that was trained."""
    options: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False}
    options["torch_dtype"] = torch.float32
    return diffusers.StableDiffusionPipeline.from_pretrained(TINY, **options).components


def stable(kind: str, **changes: Any) -> Any:
    """Return a small pipeline of a class that has the components of Stable Diffusion."""
    return getattr(diffusers, kind)(**{**parts(), **changes}, requires_safety_checker=False)


class OneText(diffusers.StableDiffusionPipeline):  # type: ignore[misc]  # Any to mypy
    """Takes one text, and no list."""

    def check_inputs(self, prompt: Any, *arguments: Any, **keywords: Any) -> None:
        """Fail for a list."""
        prompt.lower()


class NoMask(diffusers.StableDiffusionPipeline):  # type: ignore[misc]  # Any to mypy
    """Returns embeddings that are None for a long text."""

    def encode_prompt(self, prompt: Any, *arguments: Any, **keywords: Any) -> Any:
        """Return None for a text that fills all positions."""
        encoded = super().encode_prompt(prompt, *arguments, **keywords)
        return (encoded[0], None if len(prompt[0]) > 99 else torch.ones(len(prompt), 1))


MADE: dict[str, tuple[Callable[[], Any], str]] = {
    "needs an image": (lambda: stable("StableDiffusionImg2ImgPipeline"), "image"),
    "has no vae": (lambda: stable("StableDiffusionPipeline", vae=None), "vae"),
    "has no tokenizer": (lambda: stable("StableDiffusionPipeline", tokenizer=None), "no tokenizer"),
    "is always guided": (lambda: stable("StableDiffusionSAGPipeline"), "guidance"),
    "takes one text": (
        lambda: OneText(**parts(), requires_safety_checker=False),
        "one prompt fails. AttributeError: 'list'",
    ),
    "has a mask at times": (
        lambda: NoMask(**parts(), requires_safety_checker=False),
        "AttributeError: 'NoneType'",
    ),
}


@pytest.mark.parametrize("trait", MADE)
def test_what_is_not_supported_is_said_in_one_line(trait: str) -> None:
    make, message = MADE[trait]
    with refused(message) as caught:
        PipelineDenoiser(make())
    assert str(caught.value).startswith("The pipeline ") and "\n" not in str(caught.value)


def test_guidance_is_off_before_prompts_are_encoded() -> None:
    """A pipeline that encodes two prompts while it guides, and guides at a scale of 1."""

    class Guiding(diffusers.StableDiffusionPipeline):  # type: ignore[misc]  # Any to mypy
        @property
        def do_classifier_free_guidance(self) -> bool:
            return bool(self._guidance_scale > 0)

    backbone = PipelineDenoiser(Guiding(**parts(), requires_safety_checker=False))
    assert backbone.runner.call["guidance_scale"] == 0 and list(backbone.runner.shortest) == ["0.0"]


def test_pixels_are_counted_by_the_autoencoder() -> None:
    """Some pipelines' own factor includes the packing of latents."""

    class Packing(diffusers.StableDiffusionPipeline):  # type: ignore[misc]  # Any to mypy
        vae_scale_factor = property(lambda pipe: 4, lambda pipe, factor: None)

    own, packing = (
        kind(**parts(), requires_safety_checker=False)
        for kind in (diffusers.StableDiffusionPipeline, Packing)
    )
    assert PipelineDenoiser(packing).resolution == PipelineDenoiser(own).resolution


def test_a_name_that_is_no_label_is_refused_in_memory(tmp_path: Any) -> None:
    from helpers.families import save

    pipe = save("dit", tmp_path / "dit")
    backbone = PipelineDenoiser(pipe)
    assert backbone.encode_prompts(["3"])["label"].tolist() == [3]  # type: ignore[index]  # a mapping
    with refused("'no such car'", "20"):
        backbone.encode_prompts(["no such car"])


@pytest.mark.parametrize("error", [NameError("x", name="ftfy"), UnboundLocalError("x before")])
def test_a_package_that_is_not_there_is_named(error: Exception) -> None:
    named = "needs ftfy" if type(error) is NameError else "UnboundLocalError"
    with refused(named), supported("It", "a call fails"):
        raise error


def test_a_word_that_a_vocabulary_lacks_is_no_damage() -> None:
    """Only a tokenizer of bytes knows every text."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    spoken = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<unk>")
    assert token_problem(spoken, ["zebra"], None) is None
