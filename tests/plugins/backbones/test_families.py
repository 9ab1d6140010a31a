"""Every family: the contract, what is in memory, and what a LoRA leaves as it is.

The pipelines are small and random, of the real classes: no weights of the Hub.
"""

import json
import shutil
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command import bench
from helpers.families import KINDS, save
from helpers.matrix import matrix
from helpers.weights import Saved, backbone_of
from helpers.weights import saved as saved
from safetensors.torch import save_file

import bench as toolkit
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.linearising import Mixing
from bench.engine.transfer import Pool
from bench.engine.trees import leaves
from bench.inputs.weights import Lora, add_files, resolve
from bench.testing import DenoiserContract
from bench_plugins.backbones._pipelines import files
from bench_plugins.backbones._pipelines.gate import network_of
from bench_plugins.backbones._weights.checkpoint import load_model
from bench_plugins.backbones.families import Flux, StableDiffusionXL

CLASSES = ("cat", "fir tree")
SIDES = {"sana": 32}  # of the pictures; 16 of the others


def texts(kind: str) -> list[str]:
    return [name if kind == "dit" else f"a photo of a {name}" for name in CLASSES]


@pytest.fixture(scope="session")
def backbones(saved: Saved) -> Callable[[str], CheckedDenoiser]:
    """A backbone of each family, made as a run makes it."""

    @cache
    def of(kind: str) -> CheckedDenoiser:
        return CheckedDenoiser(backbone_of(saved(kind)[0], resolution=SIDES.get(kind, 16)), kind)

    return of


# `schnell` and `sigma` differ from these in numbers alone.
FAMILIES = [kind for kind in KINDS if kind not in ("schnell", "sigma")]
FAMILIES_OF_TEXTS = [kind for kind in FAMILIES if kind != "dit"]


class TestTinyDigits(DenoiserContract):
    texts = ("one", "two", "a handwritten digit seven")

    def make(self) -> object:
        return toolkit.load_backbone("tiny-digits", device="cpu")


@pytest.mark.parametrize("kind", matrix(FAMILIES, ["sdxl", "dit", "sana"]))
class TestEveryFamily(DenoiserContract):
    texts = ("fir tree", "cat", "dog")

    @pytest.fixture
    def backbone(self, kind: str, backbones: Callable[[str], CheckedDenoiser]) -> CheckedDenoiser:
        return backbones(kind)


@pytest.mark.parametrize("kind", ["tiny-digits", *matrix(FAMILIES_OF_TEXTS, ["sdxl", "sd3"])])
def test_text_encoders_are_freed_before_the_network_is_loaded(kind: str, saved: Saved) -> None:
    """They are loaded once for all prompts, and again for prompts that come later."""
    if kind == "tiny-digits":
        made = toolkit.load_backbone(kind)
    else:
        made = backbone_of(saved(kind)[0], resolution=SIDES.get(kind, 16))
    encoders = {name for name in made.pipe.components if name.startswith("text_encoder")}
    assert in_memory(made) == set()
    for _ in range(2):
        made.encode_prompts(texts(kind))
        first = made.pipe.text_encoder
        made.encode_null()
        assert in_memory(made) - {name_of_network(made), "vae"} == encoders
        assert made.pipe.text_encoder is first
        assert isinstance(made.network, torch.nn.Module)
        assert in_memory(made) == {name_of_network(made), "vae"}
        held = weakref.ref(first)
        del first
        assert held() is None


def in_memory(made: Any) -> set[str]:
    """Return the parts of a pipeline that have tensors."""
    parts = made.pipe.components.items()
    modules = {name: part for name, part in parts if isinstance(part, torch.nn.Module)}
    return {name for name, part in modules.items() if not next(part.parameters()).is_meta}


def name_of_network(made: Any) -> str:
    return "unet" if hasattr(made.pipe, "unet") else "transformer"


@pytest.mark.long
def test_no_text_encoder_is_read_where_the_embeddings_are_kept(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run reads them from the cache, and the text encoders' tensors are not needed."""
    folder = tmp_path / "copy"
    shutil.copytree(saved("sd3")[0], folder)
    read: list[str] = []

    def recorded(weights: Any, name: str, *more: Any) -> Any:
        read.append(name)
        return load_model(weights, name, *more)

    monkeypatch.setattr(files, "load_model", recorded)
    words = ("--strategy", "full", "--set", "draws=1", "--limit", 1, "--batch-size", 16)
    for results in ("first", "second"):
        done = bench("run", "digits", "--backbone", folder, *words, "--results", tmp_path / results)
        assert done.code == 0, done.err
    assert sorted(read[:3]) == ["text_encoder", "text_encoder_2", "text_encoder_3"]
    assert sorted(read[3:]) == ["transformer", "transformer", "vae", "vae"]


@pytest.mark.parametrize("kind", matrix(["flux", "sdxl"], ["flux"]))
def test_with_a_lora_a_folder_is_called_as_without(kind: str, saved: Saved, tmp_path: Path) -> None:
    """At the model's own times, and with the parameters that a user sets."""
    folder, pipe = saved(kind)
    network: Any = getattr(pipe, "unet" if kind == "sdxl" else "transformer")
    layers = network.named_modules()
    name, layer = next((n, m) for n, m in layers if n.endswith(("attn1.to_q", "attn.to_q")))
    part = "unet" if kind == "sdxl" else "transformer"
    path, ones = tmp_path / "lora.safetensors", torch.ones(2, layer.in_features)
    tensors = {"lora_A": ones, "lora_B": torch.zeros(layer.out_features, 2)}
    save_file({f"{part}.{name}.{n}.weight": value for n, value in tensors.items()}, path)
    chosen: dict[str, Any] = {"strength": 9.0} if kind == "flux" else {"original_size": 64}
    plain = resolve(str(folder))
    added = add_files(plain, [Lora(str(path), 1.0)], None)
    own = backbone_of(folder, resolution=16, **chosen)
    made: list[Any] = [own, type(own)(added, resolution=16, **chosen)]
    x_t, time = torch.ones(1, *made[0].latent_shape), torch.as_tensor(made[0].levels.time[600:601])
    with torch.inference_mode():
        prompts = [m.encode_prompts(["cat"]) for m in made]
        assert all(p.is_meta for p in network_of(made[1].pipe).parameters())  # comes later
        answers = [m.denoise(x_t, time, prompt) for m, prompt in zip(made, prompts, strict=True)]
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-6)
    assert made[0].runner.call == made[1].runner.call
    recorded = [type(own).weight_parameters(w, **chosen) for w in (plain, added)]
    assert recorded == [{}, {"with_files": 2}]  # its runs have another id than before
    np.testing.assert_array_equal(made[0].levels.time, made[1].levels.time)


def test_another_number_of_steps_of_a_flow_is_part_of_a_run(tmp_path: Path) -> None:
    save("schnell", tmp_path / "flux")
    config = tmp_path / "flux/scheduler/scheduler_config.json"
    for steps, recorded in ((1000, {}), (500, {"flow_steps": 500})):
        values = {**json.loads(config.read_text()), "num_train_timesteps": steps}
        config.write_text(json.dumps(values))
        assert Flux.weight_parameters(resolve(str(tmp_path / "flux"))) == recorded


def test_a_mean_and_deviation_of_latents_are_applied_as_the_pipeline_does(tmp_path: Path) -> None:
    pipe = save("sdxl", tmp_path / "xl")
    config = tmp_path / "xl/vae/config.json"
    mean, deviation = [0.1, -0.2, 0.3, 0.0], [0.5, 1.0, 2.0, 1.5]
    own = {"latents_mean": mean, "latents_std": deviation}
    config.write_text(json.dumps({**json.loads(config.read_text()), **own}))
    backbone = StableDiffusionXL(resolve(str(tmp_path / "xl")))
    pixels = torch.linspace(-1, 1, 3 * backbone.resolution**2).view(1, 3, backbone.resolution, -1)
    with torch.no_grad():
        plain = pipe.vae.encode(pixels).latent_dist.mean
    shift, spread = (torch.tensor(values).view(1, 4, 1, 1) for values in (mean, deviation))
    wanted = (plain - shift) / spread * pipe.vae.config.scaling_factor
    torch.testing.assert_close(backbone.encode_images(pixels), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["pixart", "flux"])
def test_a_mixture_of_prompts_that_differ_in_length(
    kind: str, backbones: Callable[[str], CheckedDenoiser]
) -> None:
    """All of one prompt is that prompt; a mixture's mask holds every place that one uses."""
    backbone = backbones(kind)
    conditioning = backbone.encode_prompts(["cat", "a fir tree"])
    mixing = Mixing(Pool(conditioning, torch.device("cpu")), backbone.mixes_rest())
    wanted = {path: leaf[:1] for path, leaf in leaves(conditioning).items()}
    for path, leaf in leaves(mixing.mix(np.array([1.0, 0.0], np.float32))).items():
        torch.testing.assert_close(leaf, wanted[path], rtol=1e-5, atol=1e-5)
    mixed = leaves(mixing.mix(np.array([0.5, 0.5], np.float32)))
    if kind == "pixart":
        mask = leaves(conditioning)["0.1"]
        assert int(mixed["0.1"].sum()) == int(mask.sum(dim=1).max()) < mask.shape[1]
