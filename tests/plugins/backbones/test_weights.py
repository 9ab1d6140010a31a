"""Weights are what they say, or refused before scoring, with the file or part that is wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.damage import (
    TEXT,
    UNET,
    VAE,
    Damage,
    adds,
    both,
    copy_pipeline,
    drops,
    every,
    links,
    removes,
    renames,
    reshapes,
    says,
    sets,
    shards,
    tensors,
    truncates,
    writes,
)
from helpers.families import save
from helpers.places import ROOT
from safetensors.torch import load_file

from bench.errors import UserError
from bench.inputs.weights import resolve
from bench_plugins.backbones._checkpoint import load_model
from bench_plugins.backbones.families import PixArt, StableDiffusion

TINY = ROOT / "plugins/bench_plugins/backbones/weights/tiny_digits"
SCHEDULER = "scheduler/scheduler_config.json"
TOKENIZER = "tokenizer/tokenizer_config.json"
NAN, INF = float("nan"), float("inf")


def cuts_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer/vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps({t: i for t, i in vocabulary.items() if i % 50 != 7}))
    (folder / "tokenizer/tokenizer.json").unlink()


def cuts_merges(folder: Path) -> None:
    path = folder / "tokenizer/merges.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-20]) + "\n")


def swaps_merges(folder: Path) -> None:
    path = folder / "tokenizer/merges.txt"
    head, first, second, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, second, first, *rest]) + "\n")


def two_precisions(folder: Path) -> None:
    path = folder / UNET
    shutil.copy(path, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    truncates(UNET)(folder)


def fifo(file: str) -> Damage:
    def apply(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return apply


def index(file: str) -> Damage:
    """An index whose tensors lie in `file`."""

    def apply(folder: Path) -> None:
        names = load_file(folder / TEXT)
        content = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, file)})
        (folder / TEXT).rename(folder.parent / "model.safetensors")
        (folder / f"{TEXT}.index.json").write_text(content)

    return apply


REFUSED: dict[str, tuple[Damage, str]] = {
    # Files.
    "a FIFO for a config": (fifo("unet/config.json"), "unet/config.json is not a regular file"),
    "a FIFO for tensors": (fifo(VAE), "vae/.* is not a regular file"),
    "a FIFO beside them": (fifo("notes.json"), "notes.json is not a regular file"),
    "a FIFO in tokenizer/": (fifo("tokenizer/x.jinja"), "tokenizer/x.jinja is not a regular file"),
    "an endless device": (links("vae/config.json", "/dev/zero"), "vae/config.json is a link that"),
    "a file outside": (links(SCHEDULER, "../../scheduler_config.json"), "leads out of the folder"),
    "a broken link": (links(UNET, "/nowhere"), "unet/.* is a broken link"),
    "a circle of links": (links(UNET, Path(UNET).name), "unet/.* cannot be read|broken link"),
    "a part outside": (links("vae", "../vae"), "the folder of vae/config.json is a link"),
    "a part that is a link": (
        both(lambda f: (f / "vae").rename(f / "real"), links("vae", "real")),
        "the folder of vae/config.json is a link",
    ),
    # JSON.
    "no config": (removes("unet/config.json"), "unet/config.json is not there"),
    "no scheduler": (removes(SCHEDULER), "scheduler/scheduler_config.json is not there"),
    "a list for a config": (writes(SCHEDULER, "[]"), "scheduler_config.json holds a list"),
    "no JSON": (writes("vae/config.json", "{"), "vae/config.json is not valid JSON"),
    "deep JSON": (writes("vae/config.json", "[" * 100_000), "vae/config.json is not valid JSON"),
    "no text": (writes("unet/config.json", b"\xff\xfe"), "unet/config.json is not valid JSON"),
    "a long number": (writes(SCHEDULER, '{"a": ' + "9" * 5000 + "}"), "is not valid JSON"),
    # UNet.
    "another network": (says("unet/config.json", _class_name="Kandinsky3UNet"), "_class_name"),
    "no class": (says("unet/config.json", _class_name=...), "has _class_name None"),
    **{
        f"sample_size {value!r}": (says("unet/config.json", sample_size=value), "sample_size")
        for value in (None, ..., [8, 8], 0, -8, 10**6, "8", 8.5, True)
    },
    "no cross-attention": (
        says(
            "unet/config.json",
            down_block_types=["DownBlock2D"] * 2,
            up_block_types=["UpBlock2D"] * 2,
            mid_block_type="UNetMidBlock2D",
            addition_embed_type=None,
        ),
        "takes no prompts",
    ),
    "other blocks": (
        says("unet/config.json", down_block_types=["DownBlock2D"] * 2),
        "unet/ contains .* not described by its config",
    ),
    "an unknown block": (
        says("unet/config.json", down_block_types=["Nonsense"] * 2),
        "unet/config.json does not describe a model",
    ),
    "another width of text": (says("unet/config.json", cross_attention_dim=63), "unet/"),
    "class labels": (says("unet/config.json", class_embed_type="timestep"), "unet/ lacks"),
    "more inputs": (
        says("unet/config.json", addition_embed_type="text_time", addition_time_embed_dim=8),
        "unet/",
    ),
    "an inpainting network": (
        says("unet/config.json", in_channels=9),
        "in_channels 9 and",
    ),
    "a million layers": (says("unet/config.json", layers_per_block=10**6), "has layers_per_block"),
    "very many layers": (says("unet/config.json", layers_per_block=64), "has layers_per_block"),
    "a huge width": (says("unet/config.json", block_out_channels=[10**12]), "block_out_channels"),
    "epsilon of nothing": (says("unet/config.json", norm_eps=0), "norm_eps"),
    # VAE.
    "another autoencoder": (says("vae/config.json", _class_name="AutoencoderTiny"), "_class_name"),
    "no widths": (says("vae/config.json", block_out_channels=...), "vae/"),
    "other latents": (says("vae/config.json", latent_channels=3), "vae/"),
    "a shift of text": (says("vae/config.json", shift_factor="1"), "shift_factor"),
    "latents that are whitened": (says("vae/config.json", latents_mean=[0] * 4), "latents_mean"),
    **{
        f"scaling {value!r}": (says("vae/config.json", scaling_factor=value), "scaling_factor")
        for value in (None, 0, -1, NAN, INF, "0.2", True, [1])
    },
    # Text encoder.
    "fewer layers": (
        says("text_encoder/config.json", num_hidden_layers=1),
        "text_encoder/ contains",
    ),
    "more layers": (says("text_encoder/config.json", num_hidden_layers=3), "text_encoder/ lacks"),
    "another text encoder": (says("text_encoder/config.json", model_type="t5"), "model_type 't5'"),
    "an unknown activation": (says("text_encoder/config.json", hidden_act="x"), "text_encoder/co"),
    "a vocabulary too small": (says("text_encoder/config.json", vocab_size=600), "tokenizer/|text"),
    "positions too few": (says("text_encoder/config.json", max_position_embeddings=31), "max_le"),
    # Tokenizer.
    **{
        f"length {value!r}": (says(TOKENIZER, model_max_length=value), "model_max_length")
        for value in (None, ..., 0, 2, -1, 10**30, 1e30, "32", True, 33)
    },
    "another tokenizer": (says(TOKENIZER, tokenizer_class="T5Tokenizer"), "tokenizer_class"),
    "a file of its choice": (says(TOKENIZER, vocab_file="/etc/passwd"), "has vocab_file"),
    "no tokenizer": (
        both(removes("tokenizer/tokenizer.json"), removes("tokenizer/vocab.json")),
        "tokenizer/ has neither tokenizer.json nor vocab.json",
    ),
    "a cut vocabulary": (cuts_vocabulary, "tokenizer/"),
    "cut merges": (both(cuts_merges, removes("tokenizer/tokenizer.json")), "merges that do not"),
    "two kinds of merges": (swaps_merges, "tokenizer/ has a merges.txt that differs"),
    "two vocabularies": (
        says("tokenizer/vocab.json", **{"!": 1, '"': 0}),
        "tokenizer/ has a vocab.json that differs",
    ),
    "a padding token that is not": (says(TOKENIZER, pad_token="<|nothing|>"), "tokenizer/"),
    # Scheduler.
    **{
        f"scheduler {name}": (says(SCHEDULER, _class_name=name), "has _class_name")
        for name in ("FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "", None)
    },
    "an empty scheduler": (writes(SCHEDULER, "{}"), "has _class_name None"),
    **{
        f"scheduler: {values}": (says(SCHEDULER, **values), SCHEDULER)
        for values in (
            {"prediction_type": "flow"},
            {"prediction_type": "nonsense"},
            {"prediction_type": None},
            {"use_flow_sigmas": True},
            {"rescale_betas_zero_snr": 7},
            {"beta_schedule": "nonsense"},
            {"beta_schedule": ...},
            {"beta_start": ...},
            {"beta_start": 0, "beta_end": 0},
            {"beta_start": 1, "beta_end": 1},
            {"beta_start": 0.01, "beta_end": -0.01},
            {"beta_start": 1e-7, "beta_end": 1e-6},
            {"beta_start": NAN},
            {"beta_end": "0.01"},
            {"trained_betas": [0.1, 0.2]},
            {"trained_betas": [0.0] * 1000},
            {"trained_betas": ["0.1"] * 1000},
            {"num_train_timesteps": 0},
            {"num_train_timesteps": -5},
            {"num_train_timesteps": 1},
            {"num_train_timesteps": 12},
            {"num_train_timesteps": 10**10},
            {"num_train_timesteps": 1000.0},
            {"num_train_timesteps": "1000"},
        )
    },
}


# The configs stay as they are, so that one pipeline without tensors serves all.
TENSORS: dict[str, tuple[Damage, str]] = {
    "an empty file": (writes(TEXT, b""), "text_encoder/model.safetensors is damaged"),
    "a cut file": (truncates(UNET), "unet/.*safetensors is damaged"),
    "a cut file beside fp16": (two_precisions, "unet/diffusion_pytorch_model.safetensors is dama"),
    "a pickle by another name": (writes(VAE, b"\x80\x02}q\x00."), "vae/.*safetensors is damaged"),
    "no tensors": (removes(UNET), "unet/ has no diffusion_pytorch_model.safetensors"),
    "an index of .bin": (index("pytorch_model.bin"), "index.json names 'pytorch_model.bin'"),
    "an index to outside": (index("../../model.safetensors"), "index.json names '../../model"),
    "an index to nothing": (index("x.safetensors"), "text_encoder/x.safetensors does not exist"),
    "an index without a map": (
        both(removes(TEXT), writes(f"{TEXT}.index.json", "{}")),
        "has no weight_map",
    ),
    "a shard that lacks some": (
        both(shards(UNET), tensors("unet/two.safetensors", drops())),
        "unet/ lacks tensor",
    ),
    "a tensor in two shards": (
        both(
            shards(UNET),
            lambda f: shutil.copy(f / "unet/one.safetensors", f / "unet/two.safetensors"),
        ),
        "which another file contains too",
    ),
    "NaN that is not used": (
        tensors(VAE, sets(NAN, "decoder.conv_in.bias")),
        "decoder.conv_in.bias",
    ),
    "infinite": (tensors(TEXT, sets(INF)), "text_encoder/.* not finite"),
    "negatively infinite": (tensors(UNET, sets(-INF)), "unet/.* not finite"),
    **{
        f"{part}: {what}": (tensors(file, change), message)
        for part, file in (("unet", UNET), ("vae", VAE), ("text_encoder", TEXT))
        for what, change, message in (
            ("a tensor missing", drops(), f"{part}/ lacks tensor"),
            ("a tensor renamed", renames(), f"{part}/ lacks tensor"),
            (
                "a tensor too many",
                adds("another.weight"),
                f"{part}/ contains tensor 'another.weight'",
            ),
            ("a tensor misshapen", reshapes(), f"{part}/.* of shape"),
            ("integers", every(lambda t: t.to(torch.int8)), f"{part}/.* with dtype I8"),
        )
    },
}


@pytest.fixture(scope="module")
def empty() -> Any:
    return StableDiffusion.empty(resolve(str(TINY)), "float32")


@pytest.mark.parametrize("name", TENSORS)
def test_refused_tensors(name: str, empty: Any, tmp_path: Path) -> None:
    """By what the backbone calls when it is made, and when a part is needed."""
    damage, message = TENSORS[name]
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    damage(folder)
    weights = resolve(str(folder))
    with pytest.raises(UserError, match=message) as caught:
        empty.with_files(weights)
        for part, kind in empty.classes.items():
            load_model(weights, part, kind, torch.float32, "cpu")
    assert_explained(caught.value, folder)


def test_tensors_that_a_library_ignores_are_listed(tmp_path: Path) -> None:
    """T5's decoder, in a folder whose encoder alone is used."""
    save("pixart", folder := tmp_path / "pixart")
    tensors(TEXT, adds("decoder.block.0.weight"))(folder)
    with pytest.warns(match="text_encoder/ has tensors that its library ignores: decoder.block"):
        PixArt.check_weights(resolve(str(folder)))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    damage, message = REFUSED[name]
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        backbone = StableDiffusion(resolve(str(folder)))
        _ = backbone.network
        backbone.encode_prompts(["a"])
    assert_explained(caught.value, folder)


def assert_explained(error: UserError, folder: Path) -> None:
    text = str(error)
    assert text.startswith(("The weights ", "The weights folder ")) and str(folder) in text
    assert "\n" not in text and len(text) < 600
