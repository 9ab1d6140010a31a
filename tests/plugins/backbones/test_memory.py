"""What a run needs in memory: counted without memory, and compared with the card."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.command import bench
from helpers.families import save
from helpers.parts import kl_config
from helpers.refusals import refused
from PIL import Image
from safetensors.torch import save_file

import bench as toolkit
from bench.engine.denoiser import CheckedDenoiser
from bench.running import estimate


def test_the_usual_autoencoder_is_as_the_estimate_has_it() -> None:
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL(**kl_config((128, 256, 512, 512), layers_per_block=2)).eval()
    size = 4 * sum(parameter.numel() for parameter in vae.parameters())
    assert size == pytest.approx(estimate.AUTOENCODER_BYTES, rel=0.01)


def test_a_plan_compares_what_it_needs_with_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "device_memory", lambda device: 24 * 2**30)
    plan = ("run", "digits", "--offline", "--device", "cuda", "--dry-run", "--results", tmp_path)
    flux = bench(*plan, "--backbone", "flux-dev", "--json").json
    assert flux["memory"] == "22 GiB of weights at a time"
    assert flux["memory_needed"].startswith("at least about 25.5 GiB (weights 22,")
    [warning] = [text for text in flux["warnings"] if text.startswith("cuda has 24 GiB, and this")]
    assert "bench.run(DATASET, backbone=pipe)" in warning and "bfloat16" not in warning
    small = bench(*plan, "--backbone", "sd21", "--json").json
    assert not [text for text in small["warnings"] if "GiB" in text]
    in_full = bench(*plan, "--backbone", "flux-dev", "--dtype", "float32").out
    assert "--dtype bfloat16 halves the weights" in " ".join(in_full.split())


@pytest.mark.long
def test_a_folder_s_parts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("sdxl", tmp_path / "xl")
    folders = ("--backbone", tmp_path / "xl", "--results", tmp_path)
    plan = ("run", "digits", *folders, "--dry-run", "--device", "cpu", "--json")
    shown = bench(*plan).json
    assert shown["memory_needed"].startswith("at least about ") and "GiB" not in str(
        shown["warnings"]
    )
    turns = bench(*plan, "--offload", "model").json["memory_needed"]
    assert float(turns.split()[3]) < float(shown["memory_needed"].split()[3])
    monkeypatch.setattr(estimate, "device_memory", lambda device: 1000)
    warnings = str(bench(*plan).json["warnings"])
    assert "cpu has " in warnings and "--offload model needs 0." in warnings


def test_a_folder_s_parts_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("sdxl", tmp_path / "xl")
    backbone: Any = toolkit.load_backbone(str(tmp_path / "xl"))
    assert backbone.offload() is True
    backbone.device = torch.device("cpu:0")  # another name of where it stays
    moves: list[tuple[str, str]] = []

    def recorded(part: Any, *to: Any, original: Any = diffusers.ModelMixin.to) -> Any:
        moves.extend((type(part).__name__, str(device)) for device in to)
        return original(part, *to)

    monkeypatch.setattr(diffusers.ModelMixin, "to", recorded)
    picture = Image.new("RGB", (16, 16))
    before = backbone.encode_images([picture])
    _ = backbone.network
    assert moves[-2:] == [("AutoencoderKL", "cpu"), ("UNet2DConditionModel", "cpu:0")]
    moves.clear()
    torch.testing.assert_close(backbone.encode_images([picture]), before)
    _ = backbone.network
    assert moves == [
        ("UNet2DConditionModel", "cpu"),
        ("AutoencoderKL", "cpu:0"),
        ("AutoencoderKL", "cpu"),
        ("UNet2DConditionModel", "cpu:0"),
    ]
    with refused("--offload"):
        CheckedDenoiser(backbone, "xl").offload()


READ = """
from pathlib import Path
from sys import argv
import diffusers, torch
from bench.inputs.weights import Weights
from bench_plugins.backbones._weights.checkpoint import load_model

def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

weights, peaks = Weights(argv[1], None, ""), []
for part in ("small", "large"):
    model = load_model(weights, part, diffusers.AutoencoderKL, torch.float32, "cpu")
    peaks.append(peak())
print(peaks[1] - peaks[0], sum(tensor.nbytes for tensor in model.state_dict().values()) / 2**20)
"""


@pytest.mark.long
def test_a_file_in_another_precision_is_not_mapped_as_a_whole(tmp_path: Path) -> None:
    for part, width in (("small", 16), ("large", 768)):
        with torch.device("meta"):
            vae = diffusers.AutoencoderKL(block_out_channels=(width,), norm_num_groups=4)
        vae.save_config(tmp_path / part)
        stored = {
            name: torch.zeros(t.shape, dtype=torch.half) for name, t in vae.state_dict().items()
        }
        save_file(stored, tmp_path / part / "diffusion_pytorch_model.safetensors")
    shown = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, check=True)
    needed, size = map(float, shown.stdout.split())
    assert size > 250 and needed < 1.25 * size  # the file has half of it
