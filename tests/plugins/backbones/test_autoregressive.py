"""Autoregressive models score images as their own code generates them."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.damage import Damage, damaged, drops, removes, says, tensors
from helpers.matrix import matrix
from helpers.refusals import refused

pytest.importorskip("transformers", "5.4")  # before it there are no processors without torchvision

import torch
from helpers.autoregressive import TEMPLATE, save_emu3, save_janus
from PIL import Image
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
from bench.engine.direct import CheckedLikelihood
from bench.inputs.weights import resolve
from bench.testing import LikelihoodContract
from bench_plugins.backbones.autoregressive import Autoregressive

SAVERS = {"janus": save_janus, "emu3": save_emu3}
MODELS = {"janus": JanusForConditionalGeneration, "emu3": Emu3ForConditionalGeneration}
PROCESSORS = {"janus": JanusProcessor, "emu3": Emu3Processor}
TEXTS = ("a photo of cat", "an owl in a tree at night", "dog")  # of different lengths
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


def janus_logits(folder: Path, image: Image.Image, text: str) -> tuple[torch.Tensor, ...]:
    """Return tokens, and logits [n, V] with and without the prompt, from Janus's `generate`."""
    model = JanusForConditionalGeneration.from_pretrained(folder)
    processor = JanusProcessor.from_pretrained(folder, backend="pil")
    pixels = processor.image_processor(images=image, return_tensors="pt").pixel_values
    tokens = model.model.vqmodel.encode(pixels, return_dict=True).image_tokens.flatten()
    content = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    wrapped = processor.apply_chat_template(content, add_generation_prompt=True)
    inputs = processor(text=[wrapped], generation_mode="image", return_tensors="pt")
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


def emu3_logits(folder: Path, image: Image.Image, text: str) -> tuple[torch.Tensor, ...]:
    """Return codes, and logits [n, V] with and without the prompt, from Emu3's `generate`."""
    model = Emu3ForConditionalGeneration.from_pretrained(folder)
    processor = Emu3Processor.from_pretrained(folder, backend="pil")
    inputs = processor.image_processor(images=image, return_tensors="pt")
    ids = model.model.get_image_tokens(inputs.pixel_values, inputs.image_sizes).tolist()
    names = model.config.vocabulary_map
    visual = [names[name] for name in sorted(names) if name.startswith("<|visual token")]
    logits = []
    for words in (text, ""):
        # `ratio` and `image_area` give the grid that the image has.
        height, width = inputs.image_sizes[0].tolist()
        options = {"ratio": f"{width}:{height}", "image_area": height * width}
        prompt = processor(
            text=[words], return_for_image_generation=True, return_tensors="pt", **options
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


@pytest.mark.parametrize("name", matrix(SAVERS, ["emu3"]))
def test_errors_are_the_likelihoods_with_which_the_model_s_own_code_generates(
    name: str, folders: dict[str, Path]
) -> None:
    image, weights = picture(20, 30), resolve(str(folders[name]))
    generated = [GENERATED[name](folders[name], image, text) for text in TEXTS]
    codes, _, empty = GENERATED[name](folders[name], image, "")

    def expected(logits: torch.Tensor) -> float:
        chances = logits.double().softmax(dim=1)
        return -sum(math.log(row[code]) for row, code in zip(chances, codes.tolist(), strict=True))

    plain = [expected(prompt) for _, prompt, _ in generated]
    guided = [expected(null + GUIDANCE * (prompt - null)) for _, prompt, null in generated]
    own = expected(empty)
    cases: list[tuple[dict[str, Any], list[float]]] = [
        ({}, plain),
        ({"relative": True}, [error - own for error in plain]),
        ({"guidance": GUIDANCE}, guided),
        ({"guidance": GUIDANCE, "relative": True}, [error - own for error in guided]),
    ]
    for options, errors in cases:
        backbone = Autoregressive(weights, device="cpu", dtype="float32", **options)
        scored = backbone.evaluate([image] * 3, TEXTS, np.zeros(3, np.int64))
        assert scored == pytest.approx(errors, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("name", matrix(SAVERS, ["emu3"]))
class TestContract(LikelihoodContract):
    texts = ("a cat", "a photo of dog", "an owl in a tree")

    @pytest.fixture
    def backbone(self, name: str, folders: dict[str, Path]) -> CheckedLikelihood:
        weights = resolve(str(folders[name]))
        made = Autoregressive(weights, device="cpu", dtype="float32", guidance=2.0)
        return CheckedLikelihood(made, name)


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
@pytest.mark.parametrize("name", matrix(SAVERS, ["janus"]))
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
        model.evaluate([picture(16, 16)], TEXTS[:1], np.zeros(1, np.int64))
        for model in (with_other, without)
    ]
    assert errors[0] != errors[1]


@pytest.mark.parametrize("name", matrix(SAVERS, ["emu3"]))
def test_images_of_any_size_are_scored(name: str, folders: dict[str, Path]) -> None:
    backbone = Autoregressive(resolve(str(folders[name])), device="cpu", dtype="float32")
    for height, width in ((1, 1), (1, 900), (900, 2)):
        errors = backbone.evaluate([picture(height, width)], TEXTS[:1], np.zeros(1, np.int64))
        assert np.isfinite(errors).all() and errors[0] > 0


@pytest.mark.parametrize(
    ("draws", "views", "words"), [(2, None, "draws=2"), (2, "crop:3", "--set draws=3")]
)
def test_an_image_has_one_draw_or_one_for_each_view(
    draws: int, views: str | None, words: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"backbone": str(folders["janus"]), "params": {"draws": draws}}
    with refused(words):
        toolkit.run("digits", views=views, limit=1, results=tmp_path, progress=False, **options)


DAMAGE: dict[str, tuple[Damage, str]] = {
    **{f"no {name}": (removes(name), name) for name in ("config.json", "model.safetensors")},
    **{
        f"no {name}": (removes(name), "janus")
        for name in ("tokenizer.json", "processor_config.json")
    },
    "another model": (
        says("config.json", architectures=["LlamaForCausalLM"]),
        "JanusForConditionalGeneration",
    ),
    "a tensor less": (
        tensors("model.safetensors", drops("model.generation_head.vision_head.weight")),
        "'model.generation_head.vision_head.weight'",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found_before_anything_is_scored(
    case: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    damage, named = DAMAGE[case]
    folder = damaged(folders["janus"], tmp_path / "janus", damage)
    with refused(named):
        Autoregressive.check_weights(resolve(str(folder)), dtype="float32")
    if case == "no config.json":  # nor is it taken for a pipeline
        with refused("model_index.json"):
            toolkit.run("digits", backbone=str(folder), limit=1, results=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("name", "guidance", "relative"),
    matrix(
        [(name, *how) for name in SAVERS for how in ((1.0, True), (3.0, False))],
        [("janus", 1.0, True), ("emu3", 3.0, False)],
    ),
)
def test_operations_are_those_of_scoring(
    name: str, guidance: float, relative: bool, folders: dict[str, Path]
) -> None:
    """Of images of different sizes and prompts of different lengths, without the weights."""
    weights, options = resolve(str(folders[name])), {"guidance": guidance, "relative": relative}
    backbone = Autoregressive(weights, device="cpu", dtype="float32", **options)  # type: ignore[arg-type]
    images = [picture(16, 16), picture(90, 40), picture(60, 64)]

    def counted(work: Callable[[], object]) -> int:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            work()
        return int(counter.get_total_flops())

    expected, tokens = 0, backbone.tokens
    for image in images:
        expected += counted(partial(backbone.evaluate, [image] * 3, TEXTS, np.zeros(3, np.int64)))
        with torch.inference_mode():
            expected -= counted(lambda image=image: tokens.embed(backbone._encode(image)))  # type: ignore[misc]
    sizes = [image.size for image in images]
    declared = Autoregressive.cell_flops(weights, TEXTS, sizes, **options)  # type: ignore[arg-type]
    assert declared == pytest.approx(expected / 9)


def test_memory_is_counted_without_the_weights(folders: dict[str, Path]) -> None:
    weights = resolve(str(folders["janus"]))
    model = JanusForConditionalGeneration.from_pretrained(folders["janus"])
    parameters = sum(tensor.numel() for tensor in model.parameters())
    assert Autoregressive.memory(weights, "bfloat16") == 2 * parameters
    counts, limit = Autoregressive.token_counts(weights, ["a cat"]) or ([], 0)
    assert counts == [6] and limit == 1024 - 16  # <s> User : a cat .
