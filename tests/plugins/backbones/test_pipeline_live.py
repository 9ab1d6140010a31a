"""A pipeline in memory as the backbone: the door of Python."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from helpers.command import bench as command
from helpers.families import save
from helpers.matrix import matrix
from helpers.refusals import refused, warned

import bench
from bench.inputs.weights import resolve
from bench.running.command import other_images_command, recording_command, reproducing_command
from bench.store.folder import read_manifest
from bench.store.formats.cells import read_cells
from bench_plugins.backbones._facts import Facts
from bench_plugins.backbones._pipelines.learning import levels_of
from bench_plugins.backbones.families import Flux
from bench_plugins.backbones.pipeline_live import LivePipeline

FULL: dict[str, Any] = {"strategy": "full", "params": {"draws": 2}, "limit": 3, "batch_size": 8}


@pytest.fixture(scope="module")
def run(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    results = tmp_path_factory.mktemp("results")
    return bench.run("digits", original, results=results, save_errors=True, **FULL)


@pytest.mark.long
def test_a_pipeline_is_swept_and_raced_where_a_risk_is_stated(pipe: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"params": {"draws": 4}, "risk": 0.4, "limit": 2, "batch_size": 64}
    raced = bench.run("digits", pipe, "race", **settings, results=tmp_path)
    stated = read_manifest(raced.folder).identity.calibrated
    assert stated is not None and stated.of == 360
    assert read_manifest(tmp_path / stated.run_id).probe is not None
    again = bench.run("digits", pipe, "race", **settings, results=tmp_path)
    assert again.run_id == raced.run_id and again["resumed"] == "complete"


@pytest.mark.long
def test_a_pipeline_is_a_backbone_as_it_is(run: Any, pipe: Any) -> None:
    """Errors are those of the family that reads the folder, and the run resumes."""
    kept: dict[str, Any] = {**FULL, "results": run.folder.parent, "save_errors": True}
    hand = bench.run("digits", f"{pipe.config._name_or_path}/", **kept)
    assert run.run_id.startswith("digits-small-xl-full-") and run.run_id != hand.run_id
    for sample_id in run.samples["sample_id"]:
        own, wanted = (read_cells(r.folder / "errors", sample_id, (10, 2)) for r in (run, hand))
        np.testing.assert_allclose(own, wanted, rtol=1e-5)
    manifest = read_manifest(run.folder)
    assert manifest.backbone.in_memory is not None and manifest.probe is not None
    assert manifest.backbone.in_memory["class"] == "StableDiffusionXLPipeline"
    again = bench.run("digits", bench.load_backbone(pipe), **kept)
    assert again.run_id == run.run_id and again["resumed"] == "complete"


def test_what_no_command_can_repeat(run: Any) -> None:
    """Messages show a call of Python, the board a mark, and `bench show` what is needed."""
    manifest = read_manifest(run.folder)
    called = "bench.run('digits', backbone=pipe, strategy='full', params={'draws': 2}"
    assert reproducing_command(manifest).startswith(called)
    assert "# pipe: StableDiffusionXLPipeline from " in reproducing_command(manifest)
    assert "save_errors=True" in recording_command(manifest)
    assert "split='OTHER'" in other_images_command(manifest)
    assert called in command("show", run.folder, COLUMNS="400").out
    board = command("leaderboard", run.folder.parent, "--wide", COLUMNS="1000")
    assert "StableDiffusionXLPipeline in memory" in " ".join(board.out.split())
    shown = command("leaderboard", run.folder.parent, "--json").json
    assert "StableDiffusionXLPipeline" in {row["in_memory"] for row in shown}


@pytest.mark.long
def test_what_is_printed_repeats_the_run(pipe: Any, tmp_path: Path) -> None:
    chosen = bench.load_backbone(pipe, resolution=32, call={"clip_skip": 1})
    first = bench.run("digits", chosen, results=tmp_path, **FULL)
    printed = reproducing_command(read_manifest(first.folder)).partition("  #")[0]
    assert "load_backbone(pipe, resolution=32, call={'clip_skip': 1}" in printed
    again = eval(f"{printed[:-1]}, results={str(tmp_path)!r})", {"bench": bench, "pipe": pipe})
    assert again.run_id == first.run_id and again["resumed"] == "complete"
    assert first.run_id != bench.run("digits", pipe, results=tmp_path, **FULL).run_id


@pytest.mark.long
def test_predictions_are_compared_when_a_run_is_repeated(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.run("digits", pipe, results=tmp_path, **FULL)
    with monkeypatch.context() as patched:  # torch itself, which no identity covers
        patched.setattr(torch._C._nn, "silu", lambda value, *rest: torch.tanh(value))
        with refused("predict"):
            bench.run("digits", pipe, results=tmp_path, **FULL)
        again = bench.run("digits", pipe, results=tmp_path, fresh=True, **FULL)
        assert again.run_id == first.run_id
    with refused("fresh=True"):
        bench.run("digits", pipe, results=tmp_path, **{**FULL, "limit": 4})


def other_betas(pipe: Any) -> None:
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, beta_end=0.02)


AFTERWARDS: dict[str, Callable[[Any], object]] = {
    "the target": lambda pipe: pipe.scheduler.register_to_config(prediction_type="v_prediction"),
    "the noise levels": other_betas,
    "the autoencoder's scale": lambda pipe: pipe.vae.register_to_config(scaling_factor=0.2),
    "the dtype": lambda pipe: pipe.to(torch.bfloat16),
}


@pytest.mark.parametrize("change", matrix(AFTERWARDS, ["the target"]))
def test_what_changes_after_it_was_loaded_counts(change: str, pipe: Any) -> None:
    """As if the pipeline were handed over anew."""
    backbone = LivePipeline(pipe)
    AFTERWARDS[change](pipe)
    content, anew = backbone.content(), LivePipeline(pipe)
    assert content.fingerprint == anew.content().fingerprint
    assert content.description["dtypes"] == anew.content().description["dtypes"]
    np.testing.assert_array_equal(backbone.levels.p, anew.levels.p)
    one, other = backbone.learned.normalisation, anew.learned.normalisation
    torch.testing.assert_close(one.scale, other.scale)


def test_prompts_are_encoded_anew_by_other_code(pipe: Any) -> None:
    """A key of prompts differs with the code of a text encoder, though no tensor does."""
    backbone, layer = LivePipeline(pipe), pipe.text_encoder_2.text_model.encoder.layers[0]
    keys = [backbone.encoder_key(backbone.content()) for _ in range(2)]
    layer.mlp.activation_fn = torch.nn.Tanh()
    keys.append(backbone.encoder_key(backbone.content()))
    assert keys[0] == keys[1] != keys[2]


def test_a_shift_that_is_set_counts_as_that_of_the_config() -> None:
    facts, who = Facts(levels="flow"), "It"
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_shift(3.0)
    wanted = levels_of(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), facts, {}, who)
    np.testing.assert_array_equal(levels_of(scheduler, facts, {}, who).sigma, wanted.sigma)


def test_offloaded_parameters_are_read_where_they_are(pipe: Any) -> None:
    backbone = LivePipeline(pipe)
    before = backbone.content().fingerprint
    for part in (pipe.unet, pipe.text_encoder):
        accelerate.cpu_offload(part, execution_device="cpu")
        assert all(parameter.is_meta for parameter in part.parameters())
    assert backbone.content().fingerprint == before
    pipe.unet.conv_in._hf_hook.weights_map.dataset["conv_in.weight"].view(-1)[0] += 1
    assert backbone.content().fingerprint != before


def test_an_offloaded_pipeline_makes_the_same_run(run: Any, pipe: Any, tmp_path: Path) -> None:
    accelerate.cpu_offload(pipe.unet, execution_device="cpu")
    offloaded = bench.run("digits", pipe, results=tmp_path, **FULL)
    assert offloaded.run_id == run.run_id
    assert list(offloaded.samples["prediction"]) == list(run.samples["prediction"])


def test_refusals(pipe: Any, tmp_path: Path) -> None:
    with refused("pipe.save_pretrained(FOLDER)"):
        bench.run("digits", pipe, results=tmp_path, shard="1/2", **FULL)
    with refused("--executor ray", "pipe.save_pretrained(FOLDER)"):
        bench.run("digits", pipe, results=tmp_path, executor="ray", **FULL)
    with refused("weights, device and dtype"):
        bench.load_backbone(pipe, dtype="bfloat16")
    with refused("dtype='float32'"):
        bench.run("digits", pipe, dtype="bfloat16", results=tmp_path, **FULL)
    with refused("compile="):
        bench.run("digits", pipe, compile=True, results=tmp_path, **FULL)
    with refused("in memory"):
        bench.load_backbone("tiny-digits", resolution=8)
    for more in ((), ("--slurm", 2)):
        done = command("run", "digits", "--backbone", "pipeline", "--results", tmp_path, *more)
        assert done.refuses("bench.run(DATASET, backbone=pipe)"), done.err
    pipe.unet.train()
    with refused("pipe.unet.eval()"):
        bench.load_backbone(pipe)
    pipe.unet.eval().to("meta")
    with refused("in memory"):
        LivePipeline(pipe).content()
    assert not list(tmp_path.glob("digits-*"))


@pytest.mark.long
def test_pictures_are_classified_as_a_run_decides(run: Any, pipe: Any) -> None:
    samples = bench.load_dataset("digits")
    rows = samples.filter(lambda row: row["sample_id"] in set(run.samples["sample_id"]))
    settings = {name: FULL[name] for name in ("strategy", "params", "batch_size")}
    answers = bench.classify(rows["image"][:], dataset="digits", backbone=pipe, **settings)
    decided = dict(zip(run.samples["sample_id"], run.samples["prediction"], strict=True))
    assert [answer.prediction for answer in answers] == [decided[i] for i in rows["sample_id"]]


def test_a_prompt_that_would_be_cut_is_refused(pipe: Any, tmp_path: Path) -> None:
    with refused("77"):
        bench.run("digits", pipe, results=tmp_path, template="x" * 90 + " {class}", **FULL)


@pytest.mark.long
def test_defaults_that_differ_from_a_folder_s_are_said(tmp_path: Path) -> None:
    """FLUX schnell takes 256 tokens as a folder, and 512 by its own default."""
    pipe = save("schnell", tmp_path / "schnell")
    with warned("max_sequence_length=256"):
        LivePipeline(pipe, resolution=16)
    made = LivePipeline(pipe, resolution=16, call={"max_sequence_length": 256})
    folder: Any = Flux(resolve(str(tmp_path / "schnell")), resolution=16)
    for name, leaf in folder.encode_prompts(["a cat"]).items():
        torch.testing.assert_close(made.encode_prompts(["a cat"])[name], leaf, rtol=1e-4, atol=1e-4)
