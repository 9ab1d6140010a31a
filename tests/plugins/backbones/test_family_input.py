"""What a family's folder may not be: exit 2 before scoring, in one line that names the part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.command import bench
from helpers.damage import Damage, removes, says, truncates
from helpers.families import save
from helpers.matrix import matrix
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("whole")

    def of(kind: str) -> Path:
        if not (root / kind).exists():
            save(kind, root / kind)
        return root / kind

    return of


def without(part: str) -> Damage:
    return lambda folder: shutil.rmtree(folder / part)


def copies(source: str, target: str) -> Damage:
    def apply(folder: Path) -> None:
        shutil.rmtree(folder / target)
        shutil.copytree(folder / source, folder / target)

    return apply


def breaks(file: str) -> Damage:
    """Make one value of one tensor NaN."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / file)
        tensors[sorted(tensors)[-1]].view(-1)[0] = torch.nan
        save_file(tensors, folder / file, {"format": "pt"})

    return apply


def cuts_vocabulary(folder: Path) -> None:
    path = folder / "text_encoder_2/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 200}))


MODEL, NETWORK = "model.safetensors", "diffusion_pytorch_model.safetensors"
DAMAGES: dict[str, tuple[str, Damage, str]] = {
    "another family": (
        "sdxl",
        says("model_index.json", _class_name="FluxPipeline"),
        "scheduler/",
    ),
    "an unknown family": ("sdxl", says("model_index.json", _class_name="Nope"), "model_index.json"),
    "no second encoder": ("sdxl", without("text_encoder_2"), "text_encoder_2/config.json"),
    "no T5": ("sd3", without("text_encoder_3"), "text_encoder_3/config.json"),
    "no tokenizer": ("sd3", without("tokenizer_3"), "tokenizer_3/tokenizer_config.json"),
    "another kind of tokenizer": ("flux", copies("tokenizer", "tokenizer_2"), "tokenizer_2/"),
    "a tokenizer that is too small": ("flux", cuts_vocabulary, "tokenizer_2/"),
    "an encoder in another's place": (
        "sdxl",
        copies("text_encoder", "text_encoder_2"),
        "encoder_2",
    ),
    "an encoder of another width": (
        "sd3",
        says("text_encoder_3/config.json", d_model=40),
        "text_encoder_3/",
    ),
    "another scheduler": (
        "sd3",
        says("scheduler/scheduler_config.json", _class_name="X"),
        "scheduler/",
    ),
    "another network": ("pixart", says("transformer/config.json", _class_name="X"), "transformer/"),
    "a cut encoder": ("sana", truncates(f"text_encoder/{MODEL}"), f"text_encoder/{MODEL}"),
    "no tensors": ("dit", removes(f"transformer/{NETWORK}"), "transformer/"),
    "NaN in an encoder": ("sd3", breaks(f"text_encoder_3/{MODEL}"), f"text_encoder_3/{MODEL}"),
    "NaN in the network": ("dit", breaks(f"transformer/{NETWORK}"), f"transformer/{NETWORK}"),
    "NaN in the VAE": ("sana", breaks(f"vae/{NETWORK}"), f"vae/{NETWORK}"),
    "a name twice": ("dit", says("model_index.json", id2label={"99": "a"}), "model_index.json"),
}


@pytest.mark.parametrize("damage", matrix(DAMAGES, {*DAMAGES} - {"NaN in an encoder"}))
def test_a_damaged_folder_is_refused(
    damage: str, whole: Callable[[str], Path], tmp_path: Path, image_folder: Path
) -> None:
    kind, apply, named = DAMAGES[damage]
    folder = tmp_path / kind
    shutil.copytree(whole(kind), folder)
    apply(folder)
    names = image_folder.parent / "names.json"
    names.write_text(json.dumps({"cat": "cat", "hot_dog": "dog"}))
    done = bench(
        *("run", image_folder, "--class-names", names, "--backbone", folder, "--limit", 1),
        *(
            "--batch-size",
            16,
            "--strategy",
            "full",
            "--set",
            "draws=1",
            "--results",
            tmp_path / "results",
        ),
        *(() if kind == "dit" else ("--resolution", 64 if kind == "sana" else 16)),
    )
    assert done.code == 2, done.err
    line = done.err.strip().splitlines()[-1]
    assert named in line, done.err
    assert "Traceback" not in done.err


def test_classes_that_are_none_of_a_model_s_labels(
    whole: Callable[[str], Path], image_folder: Path, tmp_path: Path
) -> None:
    done = bench("run", image_folder, "--backbone", whole("dit"), "--results", tmp_path)
    assert done.code == 2 and "'hot dog' is not one of its 20 classes" in done.err
    done = bench("classify", next(image_folder.rglob("*.png")), "--classes", "crane,cat,7",
                 "--backbone", whole("dit"))  # fmt: skip
    assert done.code == 2 and "the classes 13 and 14" in done.err


@pytest.mark.long
def test_sd3_without_t5(whole: Callable[[str], Path], image_folder: Path, tmp_path: Path) -> None:
    """With text=clip, T5 may be absent, and other errors come of it."""
    folder = tmp_path / "sd3"
    shutil.copytree(whole("sd3"), folder)
    command: tuple[object, ...] = (
        "run",
        image_folder,
        "--backbone",
        folder,
        "--limit",
        1,
        "--strategy",
        "full",
    )
    command = (
        *command,
        "--batch-size",
        16,
        "--set",
        "draws=1",
        "--results",
        tmp_path / "results",
        "--json",
    )
    both = bench(*command)
    shutil.rmtree(folder / "text_encoder_3")
    clip = bench(*command, "--set", "text=clip")
    assert (both.code, clip.code) == (0, 0), clip.err
    assert both.json["run_id"] != clip.json["run_id"]
    assert bench(*command, "--set", "text=t5").code == 2


@pytest.mark.long
def test_a_plan_says_what_the_weights_take(
    whole: Callable[[str], Path], image_folder: Path
) -> None:
    shown = bench("run", image_folder, "--backbone", whole("sd3"), "--dry-run", "--json")
    assert shown.code == 0, shown.err
    assert "of weights" in shown.json["memory"] and shown.json["dtype"] == "bfloat16"
