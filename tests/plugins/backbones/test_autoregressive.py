"""Autoregressive models score images as their own code generates them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.matrix import matrix

pytest.importorskip("transformers", "5.4")  # before it there are no processors without torchvision

import torch
from helpers.autoregressive import TEMPLATE, save_emu3, save_janus
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    Emu3ForConditionalGeneration,
    Emu3Processor,
    ImageTextToTextPipeline,
    JanusForConditionalGeneration,
    JanusProcessor,
    LogitsProcessor,
)

import bench as toolkit
from bench.errors import UserError
from bench.inputs.weights import resolve
from bench.testing import LikelihoodContract
from bench_plugins.backbones.autoregressive import TEXT_TOKENS, Autoregressive

SAVERS = {"janus": save_janus, "emu3": save_emu3}
MODELS = {"janus": JanusForConditionalGeneration, "emu3": Emu3ForConditionalGeneration}
PROCESSORS = {"janus": JanusProcessor, "emu3": Emu3Processor}
TEXT = "a photo of cat"
GUIDANCE = 5.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("autoregressive")
    return {name: save(root / name) for name, save in SAVERS.items()}


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


class _Forced(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Makes a model generate given tokens, and keeps the logits from which it chose each."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens: list[int] = tokens.tolist()
        self.logits: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token = self.tokens[len(self.logits)]
        self.logits.append(scores.clone())
        forced = torch.full_like(scores, -1e9)
        forced[:, token] = 0
        return forced


def janus_logits(folder: Path, image: Image.Image) -> tuple[torch.Tensor, ...]:
    """Return tokens, and logits [n, V] with and without the prompt, from Janus's `generate`."""
    model = JanusForConditionalGeneration.from_pretrained(folder)
    processor = JanusProcessor.from_pretrained(folder, backend="pil")
    pixels = processor.image_processor(images=image, return_tensors="pt").pixel_values
    tokens = model.model.vqmodel.encode(pixels, return_dict=True).image_tokens.flatten()
    content = [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]
    text = processor.apply_chat_template(content, add_generation_prompt=True)
    inputs = processor(text=[text], generation_mode="image", return_tensors="pt")
    forced = _Forced(tokens)
    generated = model.generate(
        **inputs,
        generation_mode="image",
        do_sample=False,
        guidance_scale=GUIDANCE,
        logits_processor=[forced],
    )
    assert generated[0].tolist() == tokens.tolist()
    prompt, null = torch.stack(forced.logits, dim=1)
    return tokens, prompt, null


def emu3_logits(folder: Path, image: Image.Image) -> tuple[torch.Tensor, ...]:
    """Return codes, and logits [n, V] with and without the prompt, from Emu3's `generate`."""
    model = Emu3ForConditionalGeneration.from_pretrained(folder)
    processor = Emu3Processor.from_pretrained(folder, backend="pil")
    inputs = processor.image_processor(images=image, return_tensors="pt")
    ids = model.model.get_image_tokens(inputs.pixel_values, inputs.image_sizes).tolist()
    names = model.config.vocabulary_map
    visual = [names[name] for name in sorted(names) if name.startswith("<|visual token")]
    logits = []
    for text in (TEXT, ""):
        # `ratio` and `image_area` give the grid that the image has.
        height, width = inputs.image_sizes[0].tolist()
        options = {"ratio": f"{width}:{height}", "image_area": height * width}
        prompt = processor(
            text=[text], return_for_image_generation=True, return_tensors="pt", **options
        )
        length = prompt.input_ids.shape[1]
        generated = model.generate(
            input_ids=prompt.input_ids,
            attention_mask=prompt.attention_mask,
            max_new_tokens=len(ids),
            do_sample=False,
            prefix_allowed_tokens_fn=lambda _, sequence, length=length: [
                ids[len(sequence) - length]
            ],
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert generated.sequences[0, length:].tolist() == ids
        logits.append(torch.cat(generated.logits)[:, visual])
    places = [place for place, token in enumerate(ids) if token in visual]
    codes = torch.tensor([visual.index(ids[place]) for place in places])
    prompt_logits, null_logits = (values[places] for values in logits)
    return codes, prompt_logits, null_logits


GENERATED = {"janus": janus_logits, "emu3": emu3_logits}


@pytest.mark.parametrize("name", SAVERS)
def test_errors_are_the_likelihoods_with_which_the_model_s_own_code_generates(
    name: str, folders: dict[str, Path]
) -> None:
    image, weights = picture(20, 30), resolve(str(folders[name]))
    codes, prompt, null = GENERATED[name](folders[name], image)

    def expected(logits: torch.Tensor) -> float:
        chances = logits.double().softmax(dim=1)
        return -sum(math.log(row[code]) for row, code in zip(chances, codes.tolist(), strict=True))

    cases: list[tuple[dict[str, Any], float]] = [
        ({}, expected(prompt)),
        ({"relative": True}, expected(prompt) - expected(null)),
        ({"guidance": GUIDANCE}, expected(null + GUIDANCE * (prompt - null))),
    ]
    for options, error in cases:
        backbone = Autoregressive(weights, device="cpu", dtype="float32", **options)
        scored = backbone.evaluate([image], [TEXT], np.zeros(1, np.int64))
        assert scored == pytest.approx([error], rel=1e-5, abs=1e-4)


class _Contract(LikelihoodContract):
    texts = ("a cat", "a photo of dog", "an owl in a tree")
    name: str
    folder: Path

    @pytest.fixture(autouse=True)
    def saved(self, folders: dict[str, Path]) -> None:
        type(self).folder = folders[self.name]

    def make(self) -> Any:
        weights = resolve(str(self.folder))
        return Autoregressive(weights, device="cpu", dtype="float32", guidance=2.0)


class TestJanus(_Contract):
    name = "janus"


class TestEmu3(_Contract):
    name = "emu3"


@pytest.mark.parametrize("name", matrix(SAVERS, ["emu3"]))
def test_a_folder_is_run_by_the_class_it_names(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    run = toolkit.run(
        "digits", backbone=str(folders[name]), limit=2, results=tmp_path, progress=False
    )
    backbone = Autoregressive(resolve(str(folders[name])), device="cpu", dtype="float32")
    split = toolkit.load_dataset("digits")
    names = split.features["label"].names
    images = dict(zip(split["sample_id"], split["image"], strict=True))
    for _, decision in run.samples.iterrows():
        image = images[decision.sample_id]
        errors = backbone.evaluate([image] * 10, toolkit.prompts("digits"), np.zeros(10, np.int64))
        assert decision.prediction == names[int(errors.argmin())]


@pytest.mark.long
@pytest.mark.parametrize("name", SAVERS)
def test_a_pipeline_in_memory_has_the_numbers_of_its_folder(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    def pipe(changed: bool = False) -> Any:
        model = MODELS[name].from_pretrained(folders[name]).eval()
        processor = PROCESSORS[name].from_pretrained(folders[name], backend="pil")
        if changed:
            model.lm_head.weight.data[0] += 1
        return ImageTextToTextPipeline(model=model, processor=processor)

    def run(backbone: Any) -> Any:
        return toolkit.run("digits", backbone=backbone, limit=1, results=tmp_path, progress=False)

    folder, memory, again, other = map(run, (str(folders[name]), pipe(), pipe(), pipe(True)))
    errors = [result.samples.margin.tolist() for result in (folder, memory)]
    assert errors[0] == errors[1]
    operations = [result.summary.cost.flop_per_image for result in (folder, memory)]
    assert operations[0] and operations[0] == operations[1]
    assert memory.folder == again.folder != other.folder
    assert memory.manifest.probe == again.manifest.probe


def test_another_template_is_another_model(folders: dict[str, Path], tmp_path: Path) -> None:
    other = save_janus(tmp_path / "janus", TEMPLATE.replace("User", "Picture"))
    assert resolve(str(other)).fingerprint != resolve(str(folders["janus"])).fingerprint
    with_other, without = (
        Autoregressive(resolve(str(folder)), device="cpu", dtype="float32")
        for folder in (other, folders["janus"])
    )
    errors = [
        model.evaluate([picture(16, 16)], [TEXT], np.zeros(1, np.int64))
        for model in (with_other, without)
    ]
    assert errors[0] != errors[1]


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 2)])
def test_images_of_any_size_are_scored(
    name: str, height: int, width: int, folders: dict[str, Path]
) -> None:
    backbone = Autoregressive(resolve(str(folders[name])), device="cpu", dtype="float32")
    errors = backbone.evaluate([picture(height, width)], [TEXT], np.zeros(1, np.int64))
    assert np.isfinite(errors).all() and errors[0] > 0


def test_draws_that_are_the_same_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"draws=2: .* Use 1"):
        toolkit.run(
            "digits",
            backbone=str(folders["janus"]),
            params={"draws": 2},
            limit=1,
            results=tmp_path,
            progress=False,
        )


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _other_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["LlamaForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config))


def _one_tensor_less(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.generation_head.vision_head.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("config.json"), "config.json is not there"),
        (_without("model.safetensors"), "has no model.safetensors"),
        (_without("tokenizer.json"), "cannot be loaded"),
        (_without("processor_config.json"), "cannot be loaded"),
        (_other_model, "expected one of JanusForConditionalGeneration"),
        (_one_tensor_less, "lacks tensor 'model.generation_head.vision_head.weight'"),
    ],
)
def test_damage_is_found_before_anything_is_scored(
    damage: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = save_janus(tmp_path / "janus")
    damage(folder)
    with pytest.raises(UserError, match=message):
        Autoregressive.check_weights(resolve(str(folder)), dtype="float32")


def test_a_folder_without_its_config_is_not_taken_for_a_pipeline(tmp_path: Path) -> None:
    folder = save_janus(tmp_path / "janus")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"model_index.json of a pipeline, or config.json of anoth"):
        toolkit.run("digits", backbone=str(folder), limit=1, results=tmp_path, progress=False)


def test_operations_and_memory_are_counted_without_the_weights(folders: dict[str, Path]) -> None:
    weights = resolve(str(folders["janus"]))
    model = JanusForConditionalGeneration.from_pretrained(folders["janus"])
    parameters = sum(tensor.numel() for tensor in model.parameters())
    assert Autoregressive.memory(weights, "bfloat16") == 2 * parameters
    inputs = torch.zeros(1, TEXT_TOKENS + 16, 24)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        states = model.model.language_model(inputs_embeds=inputs).last_hidden_state
        model.model.generation_head(states[0, :16])
    assert Autoregressive.evaluation_flops(weights) == counter.get_total_flops()
    counts, limit = Autoregressive.token_counts(weights, ["a cat"]) or ([], 0)
    assert counts == [6] and limit == 1024 - 16  # <s> User : a cat .
