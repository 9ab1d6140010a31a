"""Weights of the Hub's cache: fetched, used without a network, and gated ones explained."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.families import save
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub that holds one small DiT, under the name of the published one."""
    save("dit", tmp_path / "dit")
    repository = tmp_path / "hub" / "models--facebook--DiT-XL-2-256"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(tmp_path / "dit", repository / "snapshots" / COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return repository / "snapshots" / COMMIT


def test_what_is_in_the_cache_needs_no_network(
    cache: Path, tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    done = bench("fetch", "dit-256", "tiny-digits", "--json")
    assert done.code == 0, done.err
    fetched = {row["name"]: row for row in done.json}
    assert fetched["dit-256"]["revision"] == COMMIT
    assert Path(fetched["dit-256"]["folder"]) == cache
    assert fetched["dit-256"]["licence"] == "CC BY-NC 4.0"
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt,classname,classidx\ncat,cat,0\ndog,hot dog,1\n")
    done = bench(
        *("run", image_folder, "--prompts", prompts, "--backbone", "dit-256", "--offline"),
        *("--strategy", "full", "--set", "draws=2", "--results", tmp_path / "runs", "--json"),
    )
    assert done.code == 0, done.err
    assert done.json["backbone"]["revision"] == COMMIT
    (cache / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    done = bench("fetch", "dit-256")
    assert done.code == 2 and "vae/" in done.err


def test_a_gated_model_says_where_to_accept_the_licence(cache: Path) -> None:
    done = bench("fetch", "sd3")
    place = "https://huggingface.co/stabilityai/stable-diffusion-3-medium-diffusers"
    assert done.code == 2
    assert place in done.err and "Stability AI Community" in done.err
