"""One model in all the forms in which people have it: right numbers, or one line with its name.

What no library would tell from a whole model is in `test_damaged_weights`; here is what has
another form: other files, other families, classifiers, single files and LoRAs.
"""

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers.command import Finished
from helpers.command import bench as command
from helpers.damage import (
    TEXT,
    TINY,
    UNET,
    VAE,
    Damage,
    Row,
    Tensors,
    adds,
    both,
    copies,
    copy_pipeline,
    damaged,
    drops_all,
    every,
    links,
    moves,
    pickles,
    removes,
    saves,
    says,
    shards,
    spoils,
    tensors,
    truncates,
    writes,
)
from helpers.given import make_folder
from helpers.matrix import matrix
from helpers.pipelines import UNETS
from helpers.weights import INDEX, LORA, SCHEDULER, SINGLE, Forms
from helpers.weights import forms as forms

from bench.inputs.weights import resolve
from bench_plugins.backbones.families import StableDiffusion

CLIP_IMAGES = "preprocessor_config.json"


# The same model, stored in other ways: the numbers are those of the libraries.


def with_old_names(content: Tensors) -> None:
    for name in list(content):
        content["text_model." + name.removeprefix("text_model.")] = content.pop(name)


def as_stable_diffusion_1_stores_it(folder: Path) -> None:
    """Old names, a table of positions, no class-free values, and a scheduler that samples."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(content: Tensors) -> None:
        for name in [name for name in content if "attentions" in name]:
            new = name
            for now, then in old.items():
                new = new.replace(now, then)
            content[new] = content.pop(name)

    tensors(VAE, rename)(folder)
    tensors(TEXT, with_old_names)(folder)
    positions = {"text_model.embeddings.position_ids": torch.arange(32)[None]}
    tensors(TEXT, lambda content: content.update(positions))(folder)
    says(SCHEDULER, _class_name="PNDMScheduler", prediction_type=..., skip_prk_steps=True)(folder)
    (folder / "tokenizer/tokenizer.json").unlink()


def as_a_snapshot_of_the_hub(folder: Path) -> None:
    """Every file is a link to a blob, as in the cache that the Hub's client makes."""
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.*"))):
        path.rename(blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))


def only_half_precision(folder: Path) -> None:
    for file in (UNET, VAE, TEXT):
        path = folder / file
        path.rename(path.with_name(path.name.replace(".", ".fp16.", 1)))


SAME: dict[str, Damage] = {
    "as it is": lambda folder: None,
    "Stable Diffusion 1": as_stable_diffusion_1_stores_it,
    "a snapshot of the Hub": as_a_snapshot_of_the_hub,
    "shards": both(shards(UNET), shards(VAE), shards(TEXT)),
    "only fp16": only_half_precision,
    "stored in float64": tensors(UNET, every(torch.Tensor.double)),
    "another sampler": says(
        SCHEDULER, _class_name="EulerDiscreteScheduler", use_karras_sigmas=True
    ),
    "links inside": both(moves(UNET, "unet/real.safetensors"), links(UNET, "real.safetensors")),
}


SHOWN = {"as it is", "only fp16", "another sampler", "links inside"}  # by another form or dtype


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Load the model with diffusers and transformers alone, in a dtype."""
    folder = copy_pipeline(TINY, tmp_path_factory.mktemp("libraries") / "tiny")
    tensors(TEXT, with_old_names)(folder)  # which every version of transformers knows

    @cache
    def load(dtype: str) -> Any:
        vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
        options: dict[str, Any] = {"torch_dtype": getattr(torch, dtype), "safety_checker": None}
        return diffusers.DiffusionPipeline.from_pretrained(folder, vae=vae, **options)

    return load


@pytest.mark.parametrize(
    ("name", "dtype"),
    matrix(
        [*((name, "float32") for name in SAME), ("only fp16", "float16"), ("shards", "float16")],
        [
            *((name, "float32") for name in SAME if name not in SHOWN),
            ("only fp16", "float16"),
        ],
    ),
)
def test_the_same_model_in_another_form(
    name: str, dtype: str, libraries: Callable[[str], Any], tmp_path: Path
) -> None:
    folder = copy_pipeline(TINY, tmp_path / "models--some--one" / "snapshots" / "abc")
    SAME[name](folder)
    found, wanted = StableDiffusion(resolve(str(folder)), dtype=dtype), libraries(dtype)
    text = ["a handwritten digit Zero, naïve"]
    with torch.no_grad():
        rows: Any = found.encode_prompts(text)
        torch.testing.assert_close(
            rows["0.0"], wanted.encode_prompt(text, "cpu", 1, False)[0], rtol=0, atol=0
        )
    for part, module in ((found.network, wanted.unet), (found.autoencoder(), wanted.vae)):
        assert not part.training and not any(p.requires_grad for p in part.parameters())
        torch.testing.assert_close(part.state_dict(), module.state_dict(), rtol=0, atol=0)
    alphas = wanted.scheduler.alphas_cumprod.numpy().astype(np.float64)
    np.testing.assert_array_equal(found.levels.alpha, np.sqrt(alphas))


# Other forms: what people have that is no whole Stable Diffusion, by the command.


def nine_channels(folder: Path) -> None:
    shutil.rmtree(folder / "unet")
    inpainting = {**UNETS["sd15"], "in_channels": 9}
    diffusers.UNet2DConditionModel(**inpainting).save_pretrained(folder / "unet")


def of_class(name: str) -> Damage:
    return says(INDEX, _class_name=name)


NETWORK = "transformer/diffusion_pytorch_model.safetensors"
PAG = of_class("StableDiffusionPAGPipeline")
QUANTISED = {"quantization_config": {"quant_method": "bitsandbytes"}}
BIN = "diffusion_pytorch_model.bin"
OTHERS: dict[str, tuple[str, Damage, str]] = {
    # Families.
    "an unknown family": ("sdxl", of_class("Nope"), INDEX),
    "no second encoder": ("sdxl", removes("text_encoder_2"), "text_encoder_2/config.json"),
    "no T5": ("sd3", removes("text_encoder_3"), "text_encoder_3/config.json"),
    "no T5 in the index": (
        "sd3",
        both(
            removes("text_encoder_3"),
            removes("tokenizer_3"),
            says(INDEX, text_encoder_3=[None, None], tokenizer_3=[None, None]),
        ),
        "--set text=clip",
    ),
    "no tokenizer": ("sd3", removes("tokenizer_3"), "tokenizer_3/"),
    "another tokenizer": ("flux", copies("tokenizer", "tokenizer_2"), "tokenizer_2/"),
    "an encoder of another": ("sdxl", copies("text_encoder", "text_encoder_2"), "encoder_2"),
    "another scheduler": ("sd3", says(SCHEDULER, _class_name="X"), "scheduler/"),
    "another network": ("pixart", says("transformer/config.json", _class_name="X"), "transformer/"),
    "a cut encoder": ("sana", truncates(TEXT), TEXT),
    "no tensors": ("dit", removes(NETWORK), "transformer/"),
    "NaN in the network": ("dit", tensors(NETWORK, spoils()), NETWORK),
    "labels that are a list": ("dit", says(INDEX, id2label=["a"]), INDEX),
    "EDM": ("indexed", says(SCHEDULER, _class_name="EDMEulerScheduler"), "EDMEulerScheduler"),
    "nine channels": ("indexed", nine_channels, "values of a latent"),
    "SDXL without an index": ("sdxl", removes(INDEX), INDEX),
    # Quantised, or in other formats.
    "a quantised config": ("flux", says("transformer/config.json", **QUANTISED), "backbone=pipe"),
    "a network in a pickle": ("indexed", pickles(UNET, BIN), BIN),
    # Classes of which nothing is declared.
    "its quantised config": ("indexed", both(PAG, says("unet/config.json", **QUANTISED)), "unet/"),
    "its network in a pickle": ("indexed", both(PAG, pickles(UNET, BIN)), BIN),
    "ControlNet": ("indexed", of_class("StableDiffusionControlNetPipeline"), "controlnet"),
    # No pipeline.
    "a LoRA alone": ("nothing", saves(LORA, lora_A=torch.zeros(4, 4)), "--lora"),
    "an embedding": ("nothing", saves("x.safetensors", cat=torch.zeros(8)), "model_index.json"),
    "one part": (
        "nothing",
        both(
            saves("diffusion_pytorch_model.safetensors", weight=torch.zeros(9, 9, 9)),
            writes("config.json", '{"_class_name": "ControlNetModel"}'),
        ),
        "ControlNetModel",
    ),
    **{
        kind: (
            "nothing",
            writes("config.json", f'{{"model_type": "{kind}"}}'),
            f"--backbone {kind} --weights",
        )
        for kind in ("clip", "siglip")
    },
    "GGUF": ("nothing", writes("m.gguf", b"GGUF"), "m.gguf"),
    "a checkpoint": ("nothing", writes("m.ckpt", b"\x80\x02}q\x00."), "m.ckpt"),
}


def plan(folder: Path, *words: object) -> Finished:
    """Make a run of two pictures with a folder's model, named last if there are no words."""
    data = make_folder(folder.parent / "data", "cat/1.png", "dog/1.png")
    words = words or ("--backbone", folder)
    more = ("--strategy", "full", "--set", "draws=1", "--limit", 1)
    return command("run", data, *more, "--results", folder.parent / "results", *words)


# What `test_damaged_weights` shows of a part, and what another case here shows of another class.
ALIKE = {"no second encoder", "an encoder of another", "a cut encoder", "no tensors"}
ALIKE |= {"NaN in the network", "its quantised config", "its network in a pickle"}
ALIKE |= {"no header", "not finite", "a cut file", "cut, alone", "too wide"}  # of what is added
ALIKE |= {"no tokenizer", "another network", "another scheduler", "siglip", "a checkpoint"}


@pytest.mark.parametrize("case", matrix(OTHERS, OTHERS.keys() - ALIKE))
def test_another_form(case: str, forms: Forms, tmp_path: Path) -> None:
    form, damage, named = OTHERS[case]
    folder = damaged(forms(form), tmp_path / "weights", damage)
    done = plan(folder)
    assert done.refuses(named), done.err
    assert not [*tmp_path.rglob("samples.jsonl")]


def test_classes_that_are_none_of_a_model_s_labels(forms: Forms, tmp_path: Path) -> None:
    folder = damaged(forms("dit"), tmp_path / "dit", lambda folder: None)
    data = make_folder(tmp_path / "data", "hot dog/1.png")
    assert plan(folder).refuses("'hot dog'")
    words = ("classify", data / "hot dog/1.png", "--backbone", folder, "--classes", "crane,cat,7")
    assert command(*words).refuses("13", "14")


PREPARED: dict[str, dict[str, Any]] = {
    "not finite": {"image_std": [0.5, 0, 0.5]},
    "image_mean": {"image_mean": [0.5, 0.5]},
    "size": {"size": {}},
    "10000000": {"size": {"shortest_edge": 10**7}},
}
CLASSIFIER: dict[str, Row] = {
    "not a number": (tensors("model.safetensors", spoils()), "model.safetensors"),
    "no tensors": (removes("model.safetensors"), "model.safetensors"),
    "no vocabulary": (
        both(removes("tokenizer.json"), removes("vocab.json"), removes("merges.txt")),
        "tokenizer.json",
    ),
    "no preprocessing": (removes(CLIP_IMAGES), CLIP_IMAGES),
    "another size": (
        says(CLIP_IMAGES, size={"shortest_edge": 40}, crop_size={"height": 40, "width": 40}),
        CLIP_IMAGES,
    ),
    "another family": (says("config.json", model_type="siglip"), "config.json"),
    **{name: (says(CLIP_IMAGES, **values), CLIP_IMAGES) for name, values in PREPARED.items()},
}


@pytest.mark.parametrize("case", CLASSIFIER)
def test_a_classifier(case: str, forms: Forms, tmp_path: Path) -> None:
    damage, named = CLASSIFIER[case]
    folder = damaged(forms("clip"), tmp_path / "clip", damage)
    assert plan(folder, "--backbone", "clip", "--weights", folder).refuses(named)


# LoRAs and single files, named beside a folder, or alone.

NOWHERE = {f"unet.nowhere.to_q.{n}.weight": torch.ones(2, 2) for n in ("lora_A", "lora_B")}
ADD, FILE, ALONE = f"--lora IN/{LORA}", f"--weights IN/{SINGLE}", f"--backbone IN/{SINGLE}"
ADDED: dict[str, tuple[Damage, str, str]] = {
    "no LoRA": (removes(LORA), ADD, LORA),
    "a folder with two": (lambda folder: None, "--lora IN/", "2 safetensors"),
    "no header": (writes(LORA, b"no header"), ADD, LORA),
    "a network": (lambda folder: None, f"--lora IN/{UNET}", UNET),
    "another layer": (tensors(LORA, lambda content: content.update(NOWHERE)), ADD, LORA),
    "too wide": (
        tensors(LORA, every(lambda tensor: torch.cat([tensor, tensor], dim=-1))),
        ADD,
        LORA,
    ),
    "not finite": (tensors(LORA, spoils()), ADD, LORA),
    "for a classifier": (lambda folder: None, f"--backbone clip-b32 --lora IN/{LORA}", "--lora"),
    "no file": (removes(SINGLE), FILE, SINGLE),
    "a folder": (lambda folder: None, "--weights IN", "--weights"),
    "a cut file": (truncates(SINGLE), FILE, SINGLE),
    "without a part": (tensors(SINGLE, drops_all("first_stage_model.")), FILE, SINGLE),
    "a ControlNet too": (tensors(SINGLE, adds("control_model.x")), FILE, SINGLE),
    "a LoRA as a file": (lambda folder: None, f"--weights IN/{LORA}", "--lora"),
    "of no known model": (saves(SINGLE, weight=torch.ones(3)), ALONE, "--weights"),
    "cut, alone": (writes(SINGLE, b"x" * 99), ALONE, SINGLE),
    "configs elsewhere": (lambda folder: None, ALONE, "stable-diffusion-v1-5"),
    "nothing, alone": (removes(SINGLE), ALONE, SINGLE),
    "a LoRA, alone": (copies(LORA, SINGLE), ALONE, "--lora"),
}


@pytest.mark.parametrize("case", matrix(ADDED, ADDED.keys() - ALIKE))
def test_a_file_that_is_added(case: str, forms: Forms, tmp_path: Path) -> None:
    damage, words, named = ADDED[case]
    folder = damaged(forms("indexed"), tmp_path / "weights", damage)
    options = words.replace("IN", str(folder)).split()
    done = plan(folder, "--offline", "--backbone", folder, *options)
    assert done.refuses(named), done.err
