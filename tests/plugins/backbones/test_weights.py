"""Weights are what they say, or refused before scoring, with the file or part that is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.damage import (
    TEXT,
    UNET,
    VAE,
    Damage,
    Tensors,
    both,
    copy_pipeline,
    every,
    links,
    removes,
    says,
    sets,
    shards,
    tensors,
    truncates,
    writes,
)
from helpers.places import ROOT
from safetensors.torch import load_file, save_file

from bench.cli.main import cli
from bench.errors import UserError
from bench.inputs.weights import Weights, resolve
from bench_plugins.backbones.stable_diffusion import StableDiffusion

TINY = ROOT / "plugins/backbones/weights/tiny_digits"
SCHEDULER = "scheduler/scheduler_config.json"
TOKENIZER = "tokenizer/tokenizer_config.json"
NAN, INF = float("nan"), float("inf")


def renames_first(content: Tensors) -> None:
    content["another.name"] = content.pop(sorted(content)[0])


def drops_first(content: Tensors) -> None:
    del content[sorted(content)[0]]


def reshapes_first(content: Tensors) -> None:
    name = sorted(content)[0]
    content[name] = torch.zeros(3, *content[name].shape)


def adds(name: str) -> Callable[[Tensors], object]:
    return lambda content: content.update({name: torch.zeros(2)})


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
        content = json.dumps({"weight_map": dict.fromkeys(names, file)})
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
    "an empty file": (writes(TEXT, b""), "text_encoder/model.safetensors is damaged"),
    "a cut file": (truncates(UNET), "unet/.*safetensors is damaged"),
    "a cut file beside fp16": (two_precisions, "unet/diffusion_pytorch_model.safetensors is dama"),
    "a pickle by another name": (writes(VAE, b"\x80\x02}q\x00."), "vae/.*safetensors is damaged"),
    "no tensors": (removes(UNET), "unet/ has no diffusion_pytorch_model.safetensors"),
    "an index of .bin": (index("pytorch_model.bin"), "index.json names 'pytorch_model.bin'"),
    "an index to outside": (index("../../model.safetensors"), "index.json names '../../model"),
    "an index to nothing": (index("x.safetensors"), "text_encoder/x.safetensors is not there"),
    "an index without a map": (
        both(removes(TEXT), writes(f"{TEXT}.index.json", "{}")),
        "has no weight_map",
    ),
    "a shard that lacks some": (
        both(shards(UNET), tensors("unet/two.safetensors", drops_first)),
        "unet/ lacks tensor",
    ),
    "a tensor in two shards": (
        both(
            shards(UNET),
            lambda f: shutil.copy(f / "unet/one.safetensors", f / "unet/two.safetensors"),
        ),
        "a second time",
    ),
    # JSON.
    "no config": (removes("unet/config.json"), "unet/config.json is not there"),
    "no scheduler": (removes(SCHEDULER), "scheduler/scheduler_config.json is not there"),
    "a list for a config": (writes(SCHEDULER, "[]"), "scheduler_config.json holds a list"),
    "no JSON": (writes("vae/config.json", "{"), "vae/config.json is not valid JSON"),
    "deep JSON": (writes("vae/config.json", "[" * 100_000), "vae/config.json is not valid JSON"),
    "no text": (writes("unet/config.json", b"\xff\xfe"), "unet/config.json is not valid JSON"),
    "a long number": (writes(SCHEDULER, '{"a": ' + "9" * 5000 + "}"), "is not valid JSON"),
    # Tensors.
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
            ("a tensor missing", drops_first, f"{part}/ lacks tensor"),
            ("a tensor renamed", renames_first, f"{part}/ lacks tensor"),
            ("a tensor too many", adds("another.weight"), f"{part}/ holds tensor 'another.weight'"),
            ("a tensor misshapen", reshapes_first, f"{part}/.* of shape"),
            ("integers", every(lambda t: t.to(torch.int8)), f"{part}/.* as I8"),
        )
    },
    # UNet.
    "another network": (says("unet/config.json", _class_name="Kandinsky3UNet"), "_class_name"),
    "no class": (says("unet/config.json", _class_name=...), "says _class_name None"),
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
        "unet/ holds .* its config does not name",
    ),
    "an unknown block": (
        says("unet/config.json", down_block_types=["Nonsense"] * 2),
        "unet/config.json does not describe a model",
    ),
    "another width of text": (says("unet/config.json", cross_attention_dim=63), "unet/"),
    "class labels": (says("unet/config.json", class_embed_type="timestep"), "unet/ does not take"),
    "more inputs": (
        says("unet/config.json", addition_embed_type="text_time", addition_time_embed_dim=8),
        "unet/",
    ),
    "an inpainting network": (says("unet/config.json", in_channels=9), "unet/ predicts|vae/ enc"),
    "a million layers": (says("unet/config.json", layers_per_block=10**6), "says layers_per_block"),
    "very many layers": (says("unet/config.json", layers_per_block=64), "says layers_per_block"),
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
    "fewer layers": (says("text_encoder/config.json", num_hidden_layers=1), "text_encoder/ holds"),
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
    "a file of its choice": (says(TOKENIZER, vocab_file="/etc/passwd"), "names a vocab_file"),
    "no tokenizer": (
        both(removes("tokenizer/tokenizer.json"), removes("tokenizer/vocab.json")),
        "tokenizer/ has no vocab.json",
    ),
    "a cut vocabulary": (cuts_vocabulary, "tokenizer/"),
    "cut merges": (both(cuts_merges, removes("tokenizer/tokenizer.json")), "merges that do not"),
    "two kinds of merges": (swaps_merges, "tokenizer/ has a merges.txt that is not"),
    "two vocabularies": (
        says("tokenizer/vocab.json", **{"!": 1, '"': 0}),
        "tokenizer/ has a vocab.json that is not",
    ),
    "a padding token that is not": (says(TOKENIZER, pad_token="<|nothing|>"), "tokenizer/"),
    # Scheduler.
    **{
        f"scheduler {name}": (says(SCHEDULER, _class_name=name), "says _class_name")
        for name in ("FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "", None)
    },
    "an empty scheduler": (writes(SCHEDULER, "{}"), "says _class_name None"),
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


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    damage, message = REFUSED[name]
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        backbone = StableDiffusion(resolve(str(folder)))
        _ = backbone.text_encoder
    text = str(caught.value)
    assert text.startswith(("The weights ", "The weights folder ")) and str(folder) in text
    assert "\n" not in text and len(text) < 600


def test_values_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    tensors(UNET, every(torch.Tensor.float))(folder)
    tensors(UNET, sets(1e5))(folder)
    StableDiffusion(resolve(str(folder)))
    with pytest.raises(UserError, match=r"not finite in torch\.float16"):
        StableDiffusion(resolve(str(folder)), dtype="float16")


def to_names_of_version_5(content: Tensors) -> None:
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
    tensors(TEXT, to_names_of_version_5)(folder)
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
    "links inside": both(
        lambda f: (f / UNET).rename(f / "unet/real.safetensors"), links(UNET, "real.safetensors")
    ),
}


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_same_model_in_another_form(name: str, dtype: str, tmp_path: Path) -> None:
    folder = copy_pipeline(TINY, tmp_path / "models--some--one" / "snapshots" / "abc")
    SAME[name](folder)
    found = StableDiffusion(resolve(str(folder)), dtype=dtype)
    wanted = StableDiffusion(resolve(str(TINY)), dtype=dtype)
    for part in ("unet", "vae", "text_encoder"):
        tensors = getattr(found, part).state_dict()
        for key, value in getattr(wanted, part).state_dict().items():
            assert torch.equal(tensors[key], value), key
    np.testing.assert_array_equal(found.alphas_cumprod, wanted.alphas_cumprod)
    text = ["a handwritten digit Zero, naïve"]
    assert torch.equal(found.encode_prompts(text), wanted.encode_prompts(text))


def test_the_loaders_of_the_libraries_give_the_same(pipelines: dict[str, Path]) -> None:
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    for folder in pipelines.values():
        found = StableDiffusion(resolve(str(folder)))
        for kind, part in (
            (UNet2DConditionModel, "unet"),
            (AutoencoderKL, "vae"),
            (CLIPTextModel, "text_encoder"),
        ):
            wanted, module = kind.from_pretrained(folder / part), getattr(found, part)
            assert not module.training and not any(p.requires_grad for p in module.parameters())
            for key, value in wanted.state_dict().items():
                assert torch.equal(module.state_dict()[key], value), key
        scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        np.testing.assert_array_equal(found.alphas_cumprod, scheduler.alphas_cumprod.numpy())


def test_a_repository_of_the_hub_in_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    commit = "a" * 40
    snapshot = tmp_path / "models--some--one" / "snapshots" / commit
    as_a_snapshot_of_the_hub(copy_pipeline(TINY, snapshot))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    weights = Weights("some/one", commit, f"some/one@{commit}")
    StableDiffusion.check_weights(weights)
    found, wanted = StableDiffusion(weights), StableDiffusion(resolve(str(TINY)))
    text = ["a handwritten digit Zero"]
    assert torch.equal(found.encode_prompts(text), wanted.encode_prompts(text))
    (snapshot / UNET).unlink()
    with pytest.raises(UserError, match="some/one: unet/ has no diffusion_pytorch_model"):
        StableDiffusion.check_weights(weights)


def test_all_that_is_read_is_in_the_fingerprint(tmp_path: Path) -> None:
    """A link inside the folder counts by what it leads to, a shard like a single file."""
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    assert resolve(str(folder)).fingerprint != resolve(str(TINY)).fingerprint  # no README, …
    for damage in (
        both(shards(TEXT)),
        tensors("text_encoder/one.safetensors", sets(0.5)),
        both(lambda f: (f / UNET).rename(f / "unet/a.safetensors"), links(UNET, "a.safetensors")),
        tensors("unet/a.safetensors", sets(0.5)),
    ):
        before = resolve(str(folder)).fingerprint
        damage(folder)
        assert resolve(str(folder)).fingerprint != before


def test_a_file_rewritten_with_the_same_size_and_time_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.inputs.weight_files.LARGE", 10)
    file = tmp_path / "weights" / "x.safetensors"
    file.parent.mkdir()
    found = []
    for content in ("one " * 10, "two " * 10):
        file.write_text(content)
        os.utime(file, ns=(10**18, 10**18))
        found += [resolve(str(file.parent)).fingerprint for _ in range(2)]
    assert found[0] == found[1] != found[2] == found[3]


def test_a_folder_of_very_many_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.inputs.weight_files.MOST_FILES", 3)
    for name in "abcd":
        (tmp_path / f"{name}.png").touch()
    with pytest.raises(UserError, match="more than 3 files"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("bench_plugins:../../..", "not a folder inside the package"),
        ("bench_plugins:/etc", "not a folder inside the package"),
        ("bench_plugins:", "not a folder inside the package"),
        ("bench_plugins:backbones/nothing", "does not exist"),
        ("no_such_package:x", "not installed"),
        ("__main__:x", "not installed"),
        ("~no_such_user/x", "no folder's name"),
        ("./" + "x" * 5000, "no folder's name|does not exist"),
        ("./a\0b", "no folder's name"),
        (str(TINY / "README.md"), "is not a folder"),
        ("./nothing", "does not exist"),
        ("a b c", "neither a folder on this machine nor a Hub id"),
    ],
)
def test_names_that_are_no_weights(weights: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolve(weights)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 6000


@pytest.mark.parametrize("command", ["run", "classify", "dry-run"])
def test_the_command_ends_with_2_before_scoring(command: str, tmp_path: Path) -> None:
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    tensors(TEXT, drops_first)(folder)
    arguments = {
        "run": ["run", "digits", "--limit", "1", "--results", str(tmp_path / "results")],
        "classify": ["classify", str(TINY / "samples.png"), "--dataset", "digits"],
        "dry-run": ["run", "digits", "--dry-run"],
    }[command]
    result = CliRunner().invoke(cli, [*arguments, "--backbone", str(folder)])
    assert isinstance(result.exception, UserError) and result.exception.exit_code == 2
    assert "text_encoder/ lacks tensor" in str(result.exception)
    assert not (tmp_path / "results").exists()


def test_embeddings_are_kept_only_of_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.engine.denoiser import CheckedDenoiser
    from bench.engine.embeddings import embed_prompts

    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))
    folder = copy_pipeline(TINY, tmp_path / "pipeline")
    backbone = CheckedDenoiser(StableDiffusion(resolve(str(folder))), "x")
    truncates(TEXT)(folder)
    for _ in range(2):
        with pytest.raises(UserError, match=r"text_encoder/.* is damaged"):
            embed_prompts(backbone, "key", ["zero"])
    shutil.copy(TINY / TEXT, folder / TEXT)
    given = embed_prompts(backbone, "key", ["zero"])
    monkeypatch.setattr(backbone, "encode_prompts", lambda texts: torch.full((1, 32, 64), NAN))
    torch.testing.assert_close(embed_prompts(backbone, "key", ["zero"]), given)
    for _ in range(2):
        with pytest.raises(UserError, match="'one' is not finite"):
            embed_prompts(backbone, "key", ["one"])


def test_two_weights_share_no_embedding(tmp_path: Path) -> None:
    first = copy_pipeline(TINY, tmp_path / "first")
    other = copy_pipeline(TINY, tmp_path / "other")
    assert resolve(str(first)).fingerprint == resolve(str(other)).fingerprint
    save_file({**load_file(other / TEXT), "x": torch.zeros(1)}, other / TEXT)
    assert resolve(str(first)).fingerprint != resolve(str(other)).fingerprint
