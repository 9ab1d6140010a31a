"""CLIP and SigLIP against transformers' own logits; what is cached; what is refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.command import bench
from helpers.encoders import save_clip, save_dinov2, save_naflex, save_siglip
from helpers.refusals import refused
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.inputs.weights import resolve
from bench.testing import ClassifierContract
from bench.testing.backbones import TEXTS
from bench.testing.datasets import pictures
from bench_plugins.backbones.clip import Clip, Dinov2Encoder, Siglip, Siglip2, prepare_images
from bench_plugins.backbones.learned import NearestMean

KINDS: Mapping[str, Any] = {"clip": Clip, "siglip": Siglip, "siglip2": Siglip2, "naflex": Siglip2}
MADE: dict[str, Any] = {"device": "cpu", "dtype": "float32"}
# Pictures that patches fit in different ways: nearly square, and very wide or high.
_NOISE = np.random.default_rng(5).integers(0, 255, (300, 300, 3), np.uint8)
OTHER_SHAPES = [
    Image.fromarray(_NOISE[:high, :wide]) for high, wide in ((41, 52), (3, 300), (300, 3))
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    siglip = save_siglip(root / "siglip")
    made = {"siglip": siglip, "siglip2": siglip, "dinov2": save_dinov2(root / "dinov2")}
    return {**made, "clip": save_clip(root / "clip"), "naflex": save_naflex(root / "naflex")}


def own_inputs(folder: Path) -> dict[str, torch.Tensor]:
    """Prepare the pictures with transformers' class that uses PIL."""
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    name = "CLIP" if settings.get("do_center_crop") else "Siglip"
    name += "2" * ("max_num_patches" in settings)
    kind = getattr(transformers, f"{name}ImageProcessorPil", None)
    kind = kind or getattr(transformers, f"{name}ImageProcessor")
    shown = [image.convert("RGB") for image in (*pictures(), *OTHER_SHAPES)]
    made = kind(**settings)(shown)
    return {key: torch.as_tensor(np.stack(values)) for key, values in made.items()}


def test_pictures_are_resized_by_pil(folders: dict[str, Path]) -> None:
    """With every version of transformers: resized, cropped, and scaled to [-1, 1]."""
    encoder = Dinov2Encoder(resolve(str(folders["dinov2"])), **MADE)
    for image, values in zip(
        OTHER_SHAPES, *prepare_images(encoder.processor, OTHER_SHAPES), strict=True
    ):
        short = min(image.size)
        width, height = (36 * side // short for side in image.size)
        left, top = (width - 32) // 2, (height - 32) // 2
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        wanted = np.asarray(resized.crop((left, top, left + 32, top + 32)), np.float32) / 127.5 - 1
        np.testing.assert_allclose(values.transpose(1, 2, 0), wanted, atol=1e-5)


def test_patches_keep_the_aspect_ratio(folders: dict[str, Path]) -> None:
    naflex = Siglip2(resolve(str(folders["naflex"])), **MADE)
    patches, mask, shapes = prepare_images(naflex.encoder.processor, [*pictures(), *OTHER_SHAPES])
    assert patches.dtype == np.float32 and patches.shape[1:] == (20, 192)
    assert {(4, 5), (1, 20), (20, 1)} <= set(map(tuple, shapes.tolist()))
    assert mask.sum(axis=1).tolist() == shapes.prod(axis=1).tolist() and not mask.all()


@pytest.mark.parametrize("name", ["clip", "siglip", "naflex"])
def test_logits_are_those_of_transformers(name: str, folders: dict[str, Path]) -> None:
    folder, shown = folders[name], [*pictures(), *OTHER_SHAPES]
    models = {"clip": "CLIPModel", "siglip": "SiglipModel", "naflex": "Siglip2Model"}
    model = getattr(transformers, models[name]).from_pretrained(folder).eval()
    if name == "clip":
        tokens = transformers.CLIPTokenizerFast.from_pretrained(folder)
        given = dict(tokens(list(TEXTS), padding=True, return_tensors="pt"))
    else:
        tokens = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        tokens.pad_token = "</s>"
        padded = tokens(list(TEXTS), padding="max_length", max_length=16, return_tensors="pt")
        given = {"input_ids": padded["input_ids"]}
    with torch.inference_mode():
        wanted = model(**own_inputs(folder), **given).logits_per_image
    made = KINDS[name](resolve(str(folder)), **MADE)
    assert wanted.std() > 0.05
    np.testing.assert_allclose(made.score(shown, TEXTS), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(KINDS))
class TestContract(ClassifierContract):
    @pytest.fixture
    def backbone(self, name: str, folders: dict[str, Path]) -> Any:
        return KINDS[name](resolve(str(folders[name])), **MADE)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_operations_of_an_image_are_those_of_its_tower(name: str, folders: dict[str, Path]) -> None:
    weights = resolve(str(folders[name]))
    tower: Any = transformers.AutoModel.from_pretrained(folders[name]).vision_model
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tower(torch.zeros(1, 3, 32, 32))
    assert KINDS[name].evaluation_flops(weights) == counter.get_total_flops() > 0
    assert Siglip2.evaluation_flops(resolve(str(folders["naflex"]))) is None


def test_features_of_a_naflex_are_its_image_embeddings(folders: dict[str, Path]) -> None:
    weights = resolve(str(folders["naflex"]))
    wanted = Siglip2(weights, **MADE).encoder.images(pictures())
    made = NearestMean(weights, **MADE, features="embedding")
    np.testing.assert_array_equal(made.features(pictures()), wanted)


def test_several_texts_of_a_class_are_one_mean_embedding(folders: dict[str, Path]) -> None:
    made = Clip(resolve(str(folders["clip"])), **MADE)
    texts, images = made.encoder.texts(TEXTS), made.encoder.images(pictures())
    mean = texts[:2].mean(axis=0) / np.linalg.norm(texts[:2].mean(axis=0))
    wanted = images @ np.stack([mean, texts[2]]).T * made.encoder.scale_and_bias[0]
    sets = [TEXTS[:2], TEXTS[2:]]
    np.testing.assert_allclose(made.score_sets(pictures(), sets), wanted, rtol=1e-5, atol=1e-5)


def test_dinov2_s_features_are_its_pooled_output(folders: dict[str, Path]) -> None:
    model = transformers.Dinov2Model.from_pretrained(folders["dinov2"]).eval()
    with torch.inference_mode():
        pooled = model(**own_inputs(folders["dinov2"])).pooler_output
    made = Dinov2Encoder(resolve(str(folders["dinov2"])), "cpu", "float32")
    found = made.images([*pictures(), *OTHER_SHAPES])
    wanted = pooled / pooled.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_plan_says_what_the_model_takes(folders: dict[str, Path], tmp_path: Path) -> None:
    options = ("--backbone", "clip", "--weights", folders["clip"], "--results", tmp_path)
    plan = bench("run", "digits", *options, "--dry-run", "--json").json
    model = transformers.CLIPModel.from_pretrained(folders["clip"])
    size = sum(tensor.numel() for tensor in model.parameters()) * 4
    assert Clip.memory(resolve(str(folders["clip"])), "float32") == size
    assert plan["memory"] == f"{size / 2**30:.2g} GiB of weights at a time"


def test_refusals_of_the_class_itself(folders: dict[str, Path]) -> None:
    with refused("--weights"):
        Clip.check_weights(None, dtype="float32")
    counts, most = Siglip.token_counts(resolve(str(folders["siglip"])), ["A photo, of a cat!"])
    assert counts == [6] and most == 16  # five words without signs, and the end
