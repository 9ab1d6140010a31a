"""Damaged weights: named before anything is scored, by every way in, or as good as whole.

A cell is a form in which weights are stored, what is done to it, the way in which a user names it,
and what the refusal names.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.damage import (
    TEXT,
    UNET,
    VAE,
    Change,
    Damage,
    Row,
    adds,
    both,
    copies,
    damaged,
    drops,
    every,
    indexes,
    links,
    moves,
    pipes,
    removes,
    renames,
    reshapes,
    says,
    shards,
    spoils,
    tensors,
    truncates,
    writes,
)
from helpers.hub import a_hub, point_clients
from helpers.matrix import matrix
from helpers.refusals import refused
from helpers.released import RELEASED, made
from helpers.weights import LORA, SCHEDULER, SINGLE, Forms
from helpers.weights import forms as forms
from safetensors.torch import load_file

import bench
from bench.inputs.weights import Lora, Weights, add_files, resolve
from bench_plugins.backbones._pipelines.files import check_files, load_pipeline
from bench_plugins.backbones._weights.checkpoint import load_model
from bench_plugins.backbones.families import StableDiffusion
from bench_plugins.backbones.pipeline_folder import FolderPipeline

NAN, INF = float("nan"), float("inf")
TOKENIZER = "tokenizer/tokenizer_config.json"
Load = Callable[[str, Path], object]  # in a way, a folder


# Every tensor: each way × part × damage.

FILES = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}
IN_FILE = {  # beginnings of the names in a single file
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "text_encoder": "cond_stage_model.transformer.",
}
CHANGES: dict[str, Callable[[str], Change]] = {
    "missing": drops,
    "renamed": renames,
    "misshapen": reshapes,
    "left over": lambda prefix: adds(f"{prefix}another.weight"),
    "not a number": spoils,
}
TYPES: dict[str, Callable[[str], Change]] = {
    "infinite": lambda prefix: spoils(prefix, INF),
    "negatively infinite": lambda prefix: spoils(prefix, -INF),
    "integers": lambda prefix: every(lambda tensor: tensor.to(torch.int8), prefix),
    "float8": lambda prefix: every(lambda tensor: tensor.to(torch.float8_e4m3fn), prefix),
}
BYTES: dict[str, Callable[[str], Damage]] = {
    "cut": truncates,
    "empty": lambda file: writes(file, b""),
    "a pickle by its name": lambda file: writes(file, b"\x80\x02}q\x00."),
}
CONFIGS: dict[str, dict[str, dict[str, Any]]] = {
    "more layers": {
        "unet": {"layers_per_block": 2},
        "vae": {"layers_per_block": 2},
        "text_encoder": {"num_hidden_layers": 3},
    },
    "fewer layers": {
        "unet": {"mid_block_type": None},
        "vae": {"mid_block_add_attention": False},
        "text_encoder": {"num_hidden_layers": 1},
    },
}
KINDS = (*CHANGES, *TYPES, *BYTES, *CONFIGS)


def damage_of(kind: str, part: str, file: str, prefix: str = "") -> Damage:
    """Return a kind of damage of a part whose tensors are in `file`."""
    if kind in CONFIGS:
        return says(f"{part}/config.json", **CONFIGS[kind][part])
    changes = {**CHANGES, **TYPES}
    return tensors(file, changes[kind](prefix)) if kind in changes else BYTES[kind](file)


def in_parts(folder: Path) -> None:
    """Check all parts, then load each, as a run does when it needs them."""
    weights = resolve(str(folder))
    empty = StableDiffusion.empty(weights, "float32")
    empty.check_headers(weights)
    for part, kind in empty.classes.items():
        load_model(weights, part, kind, torch.float32, "cpu")


def as_a_whole(weights: Weights) -> None:
    """Load the pipeline as that of a class of which nothing is declared."""
    check_files(weights)
    load_pipeline(FolderPipeline.empty(weights, "float32"))


def scores(weights: Weights, backbone: type[FolderPipeline] = FolderPipeline) -> FolderPipeline:
    """Check and load every part, as a run does."""
    backbone.check_weights(weights)
    found = backbone(weights)
    _ = found.network, found.autoencoder()
    found.encode_prompts(["a"])
    return found


def with_lora(folder: Path) -> Weights:
    return add_files(resolve(str(folder)), [Lora(str(folder / LORA), 1.0)], None)


def with_file(folder: Path) -> Weights:
    return add_files(resolve(str(folder)), [], str(folder / SINGLE))


WAYS: dict[str, Callable[[Path], object]] = {
    "folder": in_parts,
    "whole": lambda folder: as_a_whole(resolve(str(folder))),
    "LoRA": lambda folder: scores(with_lora(folder)),
    "single file": lambda folder: as_a_whole(with_file(folder)),
    "Hub": lambda folder: scores(resolve(f"some/{folder.name}")),
}


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Load a folder in a way; for that of the Hub, a Hub of our own has it."""
    with ExitStack() as stack:

        def load(way: str, folder: Path) -> object:
            if way == "Hub":
                hub = stack.enter_context(a_hub())
                point_clients(hub, tmp_path / "cache", monkeypatch)
                hub.add(f"models/some/{folder.name}", folder)
            return WAYS[way](folder)

        yield load


ALWAYS = [  # all ways and parts are read by one function: most kinds of damage in one part
    *(("folder", [*FILES][number % 3], kind) for number, kind in enumerate(KINDS)),
    *(("whole", [*FILES][number % 3], kind) for number, kind in enumerate(CHANGES)),
    *product(["single file"], ["unet"], [*CHANGES, *CONFIGS, "float8"]),
    ("LoRA", "unet", "not a number"),
    ("Hub", "text_encoder", "not a number"),
]


@pytest.mark.parametrize(("way", "part", "kind"), matrix(product(WAYS, FILES, KINDS), ALWAYS))
def test_a_damaged_part(
    way: str,
    part: str,
    kind: str,
    forms: Forms,
    ways: Callable[[str, Path], object],
    tmp_path: Path,
) -> None:
    file, prefix = (SINGLE, IN_FILE[part]) if way == "single file" else (FILES[part], "")
    damage = damage_of(kind, part, file, prefix)
    folder = damaged(forms("indexed"), tmp_path / f"{way}-{part}".replace(" ", "-"), damage)
    named = [SINGLE if way == "single file" else f"{part}/"]
    if way in ("folder", "whole") and kind in {*CHANGES} - {"renamed"}:
        first = min(load_file(forms("indexed") / file))
        named.append("another.weight" if kind == "left over" else first)
    with refused(*named) as caught:
        ways(way, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", matrix(WAYS, ["folder"]))
def test_a_whole_one(way: str, forms: Forms, ways: Load, tmp_path: Path) -> None:
    ways(way, damaged(forms("indexed"), tmp_path / "whole", lambda folder: None))


MEMORY: dict[str, Row] = {
    "a tensor that is not there": (tensors(VAE, drops()), "decoder.conv_in.bias"),
    "a network that is not a number": (tensors(UNET, spoils()), "StableDiffusionPipeline"),
    "prompts that are not finite": (tensors(TEXT, spoils(value=INF)), "a handwritten digit zero"),
}


@pytest.mark.parametrize("case", MEMORY)
def test_a_pipeline_in_memory(case: str, forms: Forms, tmp_path: Path) -> None:
    damage, named = MEMORY[case]
    folder = damaged(forms("indexed"), tmp_path / "pipeline", damage)
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    with refused(named):
        bench.run("digits", pipe, strategy="full", params={"draws": 1}, limit=1, results=tmp_path)
    assert not [*tmp_path.rglob("samples.jsonl")]


# Files of a folder: what is wrong besides a part's own tensors.


def two_precisions(folder: Path) -> None:
    shutil.copy(folder / UNET, folder / UNET.replace(".safe", ".fp16.safe"))
    truncates(UNET)(folder)


STORED: dict[str, Row] = {
    "a cut file beside fp16": (two_precisions, UNET),
    "no tensors": (removes(UNET), "unet/"),
    "an index of .bin": (indexes(TEXT, "pytorch_model.bin"), f"{TEXT}.index.json"),
    "an index to outside": (indexes(TEXT, "../../model.safetensors"), f"{TEXT}.index.json"),
    "an index to nothing": (indexes(TEXT, "x.safetensors"), "text_encoder/x.safetensors"),
    "an index without a map": (
        both(removes(TEXT), writes(f"{TEXT}.index.json", "{}")),
        f"{TEXT}.index.json",
    ),
    "a shard that lacks some": (
        both(shards(UNET), tensors("unet/two.safetensors", drops())),
        "unet/",
    ),
    "a tensor in two shards": (
        both(shards(UNET), copies("unet/one.safetensors", "unet/two.safetensors")),
        "unet/two.safetensors",
    ),
}


@pytest.mark.parametrize("case", STORED)
def test_tensors_in_other_files(case: str, forms: Forms, tmp_path: Path) -> None:
    damage, named = STORED[case]
    folder = damaged(forms("tiny"), tmp_path / "pipeline", damage)
    with refused(named) as caught:
        in_parts(folder)
    assert_explained(caught.value, folder)


def assert_explained(error: BaseException, folder: Path) -> None:
    """Check that a refusal is a line of reasonable length that begins with the folder."""
    text = str(error)
    assert text.startswith("The weights ") and str(folder) in text
    assert "\n" not in text and len(text) < 600


FOLDER: dict[str, Row] = {
    # Files.
    "a FIFO for a config": (pipes("unet/config.json"), "unet/config.json"),
    "a FIFO for tensors": (pipes(VAE), VAE),
    "a FIFO beside them": (pipes("notes.json"), "notes.json"),
    "a FIFO in tokenizer/": (pipes("tokenizer/x.jinja"), "tokenizer/x.jinja"),
    "a file outside": (links(SCHEDULER, "../../scheduler_config.json"), SCHEDULER),
    "a broken link": (links(UNET, "nowhere"), UNET),
    "a circle of links": (links(UNET, Path(UNET).name), UNET),
    "a part outside": (links("vae", "../vae"), "vae/config.json"),
    "a part that is a link": (both(moves("vae", "real"), links("vae", "real")), "vae/config.json"),
    # JSON.
    "no config": (removes("unet/config.json"), "unet/config.json"),
    "no scheduler": (removes(SCHEDULER), SCHEDULER),
    "a list for a config": (writes(SCHEDULER, "[]"), SCHEDULER),
    "no JSON": (writes("vae/config.json", "{"), "vae/config.json"),
    "deep JSON": (writes("vae/config.json", "[" * 100_000), "vae/config.json"),
    "no text": (writes("unet/config.json", b"\xff\xfe"), "unet/config.json"),
    "a long number": (writes(SCHEDULER, '{"a": ' + "9" * 5000 + "}"), SCHEDULER),
    # A text encoder and its tokenizer.
    "another text encoder": (says("text_encoder/config.json", model_type="t5"), "model_type"),
    "an unknown activation": (
        says("text_encoder/config.json", hidden_act="x"),
        "text_encoder/config.json",
    ),
    "a vocabulary too small": (says("text_encoder/config.json", vocab_size=600), "600"),
    "positions too few": (says("text_encoder/config.json", max_position_embeddings=31), "31"),
    "no tokenizer": (
        both(removes("tokenizer/tokenizer.json"), removes("tokenizer/vocab.json")),
        "tokenizer/",
    ),
    "a padding token that is none": (says(TOKENIZER, pad_token="<|nothing|>"), "tokenizer"),
    "a file of its choice": (says(TOKENIZER, vocab_file="../vocab.json"), TOKENIZER),
}

# Configs: part → the key or file that the refusal names → its values.
CONFIGURED: dict[str, dict[str, list[dict[str, Any]]]] = {
    "unet/config.json": {
        "_class_name": [{"_class_name": "Kandinsky3UNet"}, {"_class_name": ...}],
        "StableDiffusionPipeline": [
            *({"sample_size": value} for value in (None, 10**6, "8")),
            {
                "down_block_types": ["DownBlock2D"] * 2,
                "up_block_types": ["UpBlock2D"] * 2,
                "mid_block_type": "UNetMidBlock2D",
            },
        ],
        "unet/": [
            {"sample_size": 0},
            {"down_block_types": ["Nonsense"] * 2},
            {"cross_attention_dim": 63},
            {"addition_embed_type": "text_time", "addition_time_embed_dim": 8},
        ],
        "values of a latent": [{"in_channels": 9}],
    },
    "vae/config.json": {
        "_class_name": [{"_class_name": "AutoencoderTiny"}],
        "vae/": [{"block_out_channels": ...}, {"latent_channels": 3}],
        "StableDiffusionPipeline": [{"scaling_factor": value} for value in (None, 0, NAN, "0.2")],
    },
    TOKENIZER: {
        "StableDiffusionPipeline": [
            {"model_max_length": value} for value in (None, ..., 0, 10**30, 33)
        ],
        "tokenizer/": [{"model_max_length": "32"}],
    },
    SCHEDULER: {
        "StableDiffusionPipeline": [
            {"prediction_type": "flow"},
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            {"_class_name": "EDMEulerScheduler"},
        ],
        "DDPMScheduler": [
            {"prediction_type": "nonsense"},
            {"use_flow_sigmas": True},
            {"rescale_betas_zero_snr": True, "prediction_type": "epsilon"},
            {"beta_start": 0, "beta_end": 0},
            {"beta_start": 1e-7, "beta_end": 1e-6},
            {"beta_start": NAN},
            {"trained_betas": [0.1, 0.2]},
            {"num_train_timesteps": 12},
        ],
        SCHEDULER: [
            {"beta_schedule": "nonsense"},
            {"beta_start": 0.01, "beta_end": -0.01},
            {"beta_end": "0.01"},
            *({"num_train_timesteps": value} for value in (0, 10**10, "1000")),
        ],
    },
}
# What one function refuses in all files, and all but the first of values wrong for one reason.
ALIKE = {"a FIFO for tensors", "a FIFO beside them", "a circle of links", "a part outside"}
ALIKE |= {"no scheduler", "a list for a config", "deep JSON", "no text", "positions too few"}
for _file, _keys in CONFIGURED.items():
    for _named, _choices in _keys.items():
        for _number, _values in enumerate(_choices):
            _case = f"{_file.partition('/')[0]}: {str(_values)[:60]}"
            FOLDER[_case] = says(_file, **_values), _named
            ALIKE |= {_case} if _number else set()


@pytest.mark.parametrize("case", matrix(FOLDER, {*FOLDER} - ALIKE))
def test_a_damaged_folder(case: str, forms: Forms, tmp_path: Path) -> None:
    damage, named = FOLDER[case]
    folder = damaged(forms("tiny"), tmp_path / "pipeline", damage)
    with refused(named) as caught:
        found = StableDiffusion(resolve(str(folder)))
        _ = found.network
        found.encode_prompts(["a"])
    assert_explained(caught.value, folder)


# Parts of other classes: text encoders such as UMT5, Qwen 2.5 VL and ChatGLM among them.

OFTEN = {"WanPipeline"}
LAYERS = (
    "num_hidden_layers", "num_layers", "n_layers", "num_mmdit_layers", "num_res_blocks",
    "layers_per_block",
)  # fmt: skip


def layered(part: str, more: int) -> Damage:
    """Change the number of layers in a config."""

    def apply(folder: Path) -> None:
        path = folder / part / "config.json"
        content = json.loads(path.read_text())
        config = content.get("text_config", content)
        key = next(key for key in LAYERS if isinstance(config.get(key), int))
        config[key] += more
        if "layer_types" in config:
            config["layer_types"] = (config["layer_types"] * 2)[: config[key]]
        path.write_text(json.dumps(content))

    return apply


@pytest.mark.parametrize("kind", matrix(RELEASED, OFTEN & {*RELEASED}))
def test_parts_that_their_library_reads(kind: str, tmp_path: Path) -> None:
    modules: dict[str, Any] = made(kind).components
    for part, module in modules.items():
        if not isinstance(module, torch.nn.Module):
            continue
        saved: Any = module
        saved.save_pretrained(tmp_path / part / part)

        weights, kind_of = Weights(str(tmp_path / part), None, ""), type(module)
        loaded = load_model(weights, part, kind_of, torch.float32, "cpu").state_dict()
        torch.testing.assert_close(loaded, module.state_dict(), rtol=0, atol=0)
        (file,) = (f"{part}/{path.name}" for path in (tmp_path / part / part).glob("*.safetensors"))
        cases = {name: tensors(file, change("")) for name, change in CHANGES.items()}
        cases |= {"cut": truncates(file), "more": layered(part, 1)}
        cases |= {} if part == "vae" else {"fewer": layered(part, -1)}  # a vae has one layer
        for name, damage in cases.items():
            folder = damaged(tmp_path / part, tmp_path / f"{part}-{name}", damage)
            with refused(f"{part}/"):
                load_model(
                    replace(weights, location=str(folder)), part, kind_of, torch.float32, "cpu"
                )
