"""What is read of a GPU, and what is assumed of one that is not here."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.machine.environment import device_memory, gpu
from bench.machine.speeds import PEAKS, UTILISATION, assumed_speed, seconds_on_devices

DRIVER = """#!/bin/sh
case "$1 $2" in
  "--id=1 --query-gpu=memory.total") echo 81559 ;;
  *driver_version) echo 550.54.15 ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A driver's command that knows the memory of one GPU, and its own version."""
    command = tmp_path / "nvidia-smi"
    command.write_text(DRIVER)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    card = SimpleNamespace(name="NVIDIA H100 80GB HBM3", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    return command


def test_a_manifest_describes_the_gpu(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91400)
    wanted = {"model": "NVIDIA H100 80GB HBM3", "capability": "9.0", "driver": "550.54.15"}
    assert gpu("cuda") == {**wanted, "cuda": "13.0", "cudnn": "91400"}
    driver.unlink()
    monkeypatch.setenv("PATH", str(driver.parent))
    assert "driver" not in gpu("cuda")


@pytest.mark.usefixtures("driver")
def test_the_memory_is_that_of_the_gpu_asked_for() -> None:
    assert device_memory("cuda:1") == 81559 * 2**20
    assert device_memory("cuda:7") is None


def test_the_time_follows_the_peak_of_the_precision() -> None:
    half = seconds_on_devices(312e12, "bfloat16")
    assert half["A100"] == pytest.approx(1 / UTILISATION["bfloat16"])
    assert half == seconds_on_devices(312e12, "float16")
    full = seconds_on_devices(312e12, "float32")
    assert set(half) == set(full) == set(PEAKS)
    assert all(half[name] < full[name] for name in PEAKS)


def test_a_gpu_of_unknown_name_does_no_more_than_its_precision_allows() -> None:
    assert assumed_speed("cuda", "bfloat16") == pytest.approx(62.4e12)
    assert (assumed_speed("cuda", "float32") or 0) <= 19.5e12
    assert assumed_speed("tpu", "float32") is None
