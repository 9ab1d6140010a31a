"""What people have that is no whole pipeline in float: one line that says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from helpers.command import bench
from helpers.damage import UNET, Damage, every, removes, says, tensors
from helpers.families import save
from helpers.matrix import matrix
from helpers.pipelines import UNETS, save_indexed, save_pipeline
from safetensors.torch import load_file, save_file

SCHEDULER = "scheduler/scheduler_config.json"
INDEX = "model_index.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("whole")

    def of(kind: str) -> Path:
        if not (folder := root / kind).exists():
            if kind == "indexed":
                save_indexed(folder)
            elif kind == "sd":
                save_pipeline(folder, "sd15")
            else:
                save(kind, folder)
        return folder

    return of


def refusal(backbone: Path, results: Path) -> str:
    """Return the one line with which a plan is refused."""
    done = bench(
        *("run", "digits", "--limit", 1, "--strategy", "full", "--set", "draws=2", "--dry-run"),
        *("--backbone", backbone, "--results", results),
    )
    assert done.code == 2 and "Traceback" not in done.err, done.err
    return done.err.strip().splitlines()[-1]


def pickles(file: str, name: str) -> Damage:
    def apply(folder: Path) -> None:
        torch.save(load_file(folder / file), (folder / file).with_name(name))
        (folder / file).unlink()

    return apply


def gguf(folder: Path) -> None:
    (folder / UNET).with_name("model-Q4_0.gguf").write_bytes(b"GGUF")
    (folder / UNET).unlink()


def nine_channels(folder: Path) -> None:
    shutil.rmtree(folder / "unet")
    inpainting = {**UNETS["sd15"], "in_channels": 9}
    diffusers.UNet2DConditionModel(**inpainting).save_pretrained(folder / "unet")


def without_t5(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder_3")
    shutil.rmtree(folder / "tokenizer_3")
    says(INDEX, text_encoder_3=[None, None], tokenizer_3=[None, None])(folder)


CASES: dict[str, tuple[str, Damage, str]] = {
    "a quantised config": (
        "flux",
        says("transformer/config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "transformer/config.json has a quantization_config: the model is quantised; load it with"
        " diffusers and hand it over: bench.run(DATASET, backbone=pipe)",
    ),
    "quantised tensors": (
        "sd",
        tensors(UNET, every(lambda tensor: tensor.to(torch.float8_e4m3fn))),
        "If the model is quantised, load it with diffusers",
    ),
    "a network in a pickle": (
        "sd",
        pickles(UNET, "diffusion_pytorch_model.bin"),
        "diffusion_pytorch_model.bin is a pickle, which can run code and is not opened",
    ),
    "a text encoder in a pickle": (
        "sd",
        pickles("text_encoder/model.safetensors", "pytorch_model.bin"),
        "save it again with pipe.save_pretrained(FOLDER)",
    ),
    "a network as GGUF": ("sd", gguf, "model-Q4_0.gguf is quantised (GGUF)"),
    "EDM": (
        "sd",
        says(SCHEDULER, _class_name="EDMEulerScheduler"),
        "trained with EDM preconditioning",
    ),
    "nine channels": ("sd", nine_channels, "in_channels 9 and out_channels 4: a network for inpai"),
    "no T5": ("sd3", without_t5, "--set text=clip does without T5"),
    "SDXL without an index": ("sdxl", removes(INDEX), "Use --backbone folder-sdxl --weights /"),
    "FLUX without an index": ("flux", removes(INDEX), "Use --backbone folder-flux --weights /"),
}


OTHER_CLASSES: dict[str, tuple[str, Damage, str]] = {
    "a quantised config": (
        "StableDiffusionPAGPipeline",
        says("unet/config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "unet/config.json has a quantization_config: the model is quantised; load it with",
    ),
    "a network in a pickle": (
        "StableDiffusionPAGPipeline",
        pickles(UNET, "diffusion_pytorch_model.bin"),
        "unet/ has no diffusion_pytorch_model.safetensors; diffusion_pytorch_model.bin is a pickle",
    ),
    "inpainting": (
        "StableDiffusionInpaintPipeline",
        nine_channels,
        "it takes image, and diffusers does not list it",
    ),
    "ControlNet": (
        "StableDiffusionControlNetPipeline",
        lambda _: None,
        "it needs controlnet",
    ),
}


@pytest.mark.parametrize("case", OTHER_CLASSES)
def test_a_pipeline_of_another_class(
    case: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    name, damage, line = OTHER_CLASSES[case]
    folder = tmp_path / "sd"
    shutil.copytree(whole("indexed"), folder)
    says(INDEX, _class_name=name)(folder)
    damage(folder)
    assert line in refusal(folder, tmp_path / "results")


@pytest.mark.parametrize(
    "case",
    matrix(
        CASES,
        {*CASES} - {"quantised tensors", "SDXL without an index", "a text encoder in a pickle"},
    ),
)
def test_a_pipeline_that_cannot_be_read(
    case: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    kind, damage, line = CASES[case]
    folder = tmp_path / kind
    shutil.copytree(whole(kind), folder)
    damage(folder)
    assert line in refusal(folder, tmp_path / "results")


LORA = {"unet.down_blocks.0.attentions.0.to_k.lora_A.weight": torch.zeros(4, 4)}
ALONE: dict[str, tuple[str, dict[str, torch.Tensor], str]] = {
    "a LoRA": ("pytorch_lora_weights.safetensors", LORA, "is a LoRA, not a whole model"),
    "an embedding": ("learned_embeds.safetensors", {"<cat>": torch.zeros(8)}, "load_textual_inver"),
}


@pytest.mark.parametrize("case", ALONE)
def test_a_folder_without_a_network(case: str, tmp_path: Path) -> None:
    name, content, line = ALONE[case]
    save_file(content, tmp_path / name)
    assert line in refusal(tmp_path, tmp_path / "results")


def test_one_part_of_a_pipeline(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "ControlNetModel"}))
    save_file({"weight": torch.zeros(9, 9, 9)}, tmp_path / "diffusion_pytorch_model.safetensors")
    assert "config.json describes 'ControlNetModel', a single component" in refusal(
        tmp_path, tmp_path / "results"
    )


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_folder_of_a_classifier(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    line = refusal(tmp_path, tmp_path / "results")
    assert f"describes {kind!r}" in line and f"--backbone {kind} --weights {tmp_path}" in line
    assert "scheduler" not in line and "model_index" not in line


def test_files_of_other_formats(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for name, line in (("m.gguf", "m.gguf is quantised (GGUF)"), ("m.ckpt", "m.ckpt is a pickle")):
        (folder := tmp_path / name.replace(".", "-")).mkdir()
        (folder / name).write_bytes(b"GGUF")
        assert line in refusal(folder, results) and line in refusal(folder / name, results)
