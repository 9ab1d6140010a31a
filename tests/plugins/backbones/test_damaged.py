"""Every way in checks every tensor: none missing, left over, misshapen, cut or not a number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.command import bench
from helpers.damage import (
    TEXT,
    UNET,
    VAE,
    Change,
    Damage,
    adds,
    drops,
    renames,
    reshapes,
    says,
    spoils,
    tensors,
    truncates,
)
from helpers.hub import Hub, a_hub, point_clients
from helpers.loras import save_lora
from helpers.matrix import matrix
from helpers.pipelines import save_indexed
from helpers.places import ROOT
from helpers.released import RELEASED, made
from helpers.single_file import save_single_file
from safetensors.torch import load_file, save_file

from bench.errors import UserError
from bench.inputs.weights import Lora, Weights, add_files, resolve
from bench_plugins.backbones._checkpoint import load_model
from bench_plugins.backbones._files import load_pipeline
from bench_plugins.backbones.pipeline_folder import FolderPipeline

TINY = ROOT / "plugins/bench_plugins/backbones/weights/tiny_digits"
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


KINDS = (*CHANGES, "cut", *CONFIGS)


def damage(part: str, kind: str, file: str, prefix: str = "") -> Damage:
    """Return a kind of damage of a part whose tensors are in `file`."""
    if kind in CONFIGS:
        return says(f"{part}/config.json", **CONFIGS[kind][part])
    return truncates(file) if kind == "cut" else tensors(file, CHANGES[kind](prefix))


def each_damage(parts: Iterable[str], kinds: Iterable[str]) -> pytest.MarkDecorator:
    """Parametrise a test by parts and kinds of damage; always tried are `kinds` of `parts`."""
    return pytest.mark.parametrize(
        ("part", "kind"), matrix(product(FILES, KINDS), [*product(parts, kinds)])
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_indexed(tmp_path_factory.mktemp("whole") / "pipeline")


@pytest.fixture(scope="module")
def lora(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Lora:
    pipe = diffusers.DiffusionPipeline.from_pretrained(whole)
    return Lora(str(save_lora(pipe, tmp_path_factory.mktemp("lora"))), 1.0)


@pytest.fixture(scope="module")
def single(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipe = diffusers.DiffusionPipeline.from_pretrained(whole)
    return save_single_file(pipe, tmp_path_factory.mktemp("single") / "model.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with a_hub() as served:
        point_clients(served, tmp_path / "cache", monkeypatch)
        yield served


def copied(whole: Path, folder: Path, damage: Damage) -> Path:
    shutil.copytree(whole, folder)
    damage(folder)
    return folder


def loads(weights: Weights) -> None:
    """Load every part as a run does."""
    backbone = FolderPipeline(weights)
    _ = backbone.network, backbone.vae
    backbone.encode_prompts(["a"])


@contextmanager
def refused(named: str) -> Iterator[None]:
    """Fail unless damaged weights are refused in one line that names the part or file."""
    with pytest.raises(UserError) as caught:
        yield
    assert named in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.long
def test_whole_ones_are_accepted(whole: Path, lora: Lora, single: Path, hub: Hub) -> None:
    """By every way in that is tried with damaged ones below."""
    hub.add("models/some/one", whole)
    loads(resolve("some/one"))
    loads(add_files(resolve(str(whole)), [lora], None))
    loads(add_files(resolve(str(whole)), [], str(single)))
    load_pipeline(resolve(str(whole)), torch.float32)


@each_damage(FILES, KINDS)
def test_a_pipeline_that_is_loaded_as_a_whole(
    part: str, kind: str, whole: Path, tmp_path: Path
) -> None:
    """As with a LoRA, and where nothing is declared of its class."""
    folder = copied(whole, tmp_path / "copy", damage(part, kind, FILES[part]))
    with refused(part):
        load_pipeline(resolve(str(folder)), torch.float32)


def test_what_no_prediction_needs_is_not_read(whole: Path, tmp_path: Path) -> None:
    entry = ["transformers", "CLIPVisionModelWithProjection"]
    folder = copied(whole, tmp_path / "copy", says("model_index.json", image_encoder=entry))
    assert load_pipeline(resolve(str(folder)), torch.float32).image_encoder is None


# A folder with a LoRA, a repository and a folder are loaded by the same functions.
@each_damage(["unet"], ["not a number"])
def test_a_folder_with_a_lora(
    part: str, kind: str, whole: Path, lora: Lora, tmp_path: Path
) -> None:
    folder = copied(whole, tmp_path / "copy", damage(part, kind, FILES[part]))
    with refused(part):
        loads(add_files(resolve(str(folder)), [lora], None))


@each_damage(["text_encoder"], ["not a number"])
def test_a_repository_of_the_hub(
    part: str, kind: str, whole: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.add("models/some/one", copied(whole, tmp_path / "x", damage(part, kind, FILES[part])))
    with refused(part):
        loads(resolve("some/one"))


@each_damage(["unet"], [*CHANGES, *CONFIGS])
def test_a_single_file(part: str, kind: str, whole: Path, single: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    shutil.copy(single, folder)
    damage(part, kind, single.name, IN_FILE[part])(folder)
    weights = add_files(resolve(str(folder)), [], str(folder / single.name))
    with refused(single.name):
        load_pipeline(weights, torch.float32)


def test_what_single_files_hold_beside_a_pipeline(
    whole: Path, single: Path, tmp_path: Path
) -> None:
    content = load_file(single)
    names = (
        "model_ema.decay", "betas", "sqrt_alphas_cumprod", "posterior_mean_coef1", "logvar",
        "cond_stage_model.logit_scale", "denoiser.sigmas",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
    )  # fmt: skip
    save_file({**content, **{name: torch.ones(3) for name in names}}, tmp_path / "more.safetensors")
    weights = add_files(resolve(str(whole)), [], str(tmp_path / "more.safetensors"))
    load_pipeline(weights, torch.float32)
    save_file({**content, "control_model.x": torch.ones(3)}, tmp_path / "control.safetensors")
    weights = add_files(resolve(str(whole)), [], str(tmp_path / "control.safetensors"))
    with refused("control.safetensors: network has"):
        load_pipeline(weights, torch.float32)


def test_a_lora_that_is_not_finite(whole: Path, lora: Lora, tmp_path: Path) -> None:
    shutil.copy(lora.path, tmp_path / "lora.safetensors")
    tensors("lora.safetensors", spoils())(tmp_path)
    weights = add_files(resolve(str(whole)), [Lora(f"{tmp_path}/lora.safetensors", 1.0)], None)
    with refused("lora.safetensors does not fit"):
        load_pipeline(weights, torch.float32)


def test_the_dropout_of_a_lora_is_off(whole: Path, lora: Lora, tmp_path: Path) -> None:
    """Newer files say with which one it was trained, and newer diffusers restore it."""
    config = {"r": 2, "lora_alpha": 2, "lora_dropout": 0.5, "target_modules": ["to_q", "to_v"]}
    content = json.dumps({f"unet.{name}": value for name, value in config.items()})
    file = tmp_path / "lora.safetensors"
    save_file(load_file(lora.path), file, {"format": "pt", "lora_adapter_metadata": content})
    weights = add_files(resolve(str(whole)), [Lora(str(file), 1.0)], None)
    unet = load_pipeline(weights, torch.float32).unet
    assert not [name for name, module in unet.named_modules() if module.training]


@pytest.mark.long
def test_a_lora_of_zeros_does_not_hide_what_is_missing(lora: Lora, tmp_path: Path) -> None:
    """The whole command: it ended well, with another accuracy in each process."""
    folder = tmp_path / "pipeline"
    shutil.copytree(TINY, folder)
    pipe = diffusers.DiffusionPipeline.from_pretrained(TINY)
    zeros = save_lora(pipe, tmp_path / "lora")
    save_file({n: torch.zeros_like(t) for n, t in load_file(zeros).items()}, zeros)
    run = ("run", "digits", "--limit", 1, "--strategy", "full", "--set", "draws=2")
    options = ("--lora", zeros, "--results", tmp_path / "results", "--backbone", folder)
    assert bench(*run, *options).code == 0
    tensors(TEXT, lambda content: [content.pop(n) for n in list(content) if "layers" in n])(folder)
    done = bench(*run, *options)
    assert done.code == 2 and "text_encoder/ lacks" in done.err, done.err


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


OFTEN = {"WanPipeline", "QwenImagePipeline", "KolorsPipeline"}  # UMT5, Qwen 2.5 VL and ChatGLM


@pytest.mark.parametrize("kind", matrix(RELEASED, OFTEN & {*RELEASED}))
def test_parts_that_their_library_reads(kind: str, tmp_path: Path) -> None:
    """Among them the text encoders of Wan (UMT5), Qwen-Image, Z-Image, CogView 4 and Kolors."""
    modules: dict[str, Any] = made(kind).components
    for part, module in modules.items():
        if not isinstance(module, torch.nn.Module):
            continue
        saved: Any = module
        saved.save_pretrained(tmp_path / part / part)
        weights = Weights(str(tmp_path / part), None, "")
        loaded = load_model(weights, part, type(module), torch.float32, "cpu").state_dict()
        torch.testing.assert_close(loaded, module.state_dict(), rtol=0, atol=0)
        (file,) = (f"{part}/{path.name}" for path in (tmp_path / part / part).glob("*.safetensors"))
        cases = {name: tensors(file, change("")) for name, change in CHANGES.items()}
        cases |= {"cut": truncates(file), "more": layered(part, 1), "fewer": layered(part, -1)}
        if part == "vae":  # it has one layer
            del cases["fewer"]
        for name, damages in cases.items():
            damaged = copied(tmp_path / part, tmp_path / f"{part}-{name}", damages)
            with refused(f"{part}/"):
                weights = Weights(str(damaged), None, "")
                load_model(weights, part, type(module), torch.float32, "cpu")
