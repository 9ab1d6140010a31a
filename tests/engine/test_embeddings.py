"""Prompts are encoded once, and kept."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers.refusals import warned

import bench as toolkit
from bench.engine import embeddings
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.embeddings import embed_prompts


def test_embeddings_are_shared_by_runs_that_begin_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    backbone = CheckedDenoiser(toolkit.load_backbone("tiny-digits"), "tiny-digits")
    texts = ["one", "two", "three"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: embed_prompts(backbone, "key", texts), range(4)))
    for conditioning in found:
        torch.testing.assert_close(conditioning, found[0])
    (file,) = tmp_path.rglob("*.safetensors")  # one for the whole set
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]
    file.write_bytes(file.read_bytes()[:-7])  # damaged: encoded again
    with warned("safetensors"):
        torch.testing.assert_close(embed_prompts(backbone, "key", texts), found[0])
    content = bytearray(file.read_bytes())
    content[-100:] = b"\x3f" * 100  # its header is kept, and its numbers are finite
    file.write_bytes(content)
    with warned("safetensors"):
        torch.testing.assert_close(embed_prompts(backbone, "key", texts), found[0])
    file.unlink()
    os.mkfifo(file)
    with warned("safetensors"):
        torch.testing.assert_close(embed_prompts(backbone, "key", texts), found[0])
    embed_prompts(backbone, "another backbone", texts)
    embed_prompts(backbone, "key", texts[::-1])
    with monkeypatch.context() as upgraded:
        upgraded.setattr(embeddings, "installed_distributions", lambda: ["diffusers-99.dist-info"])
        assert not embeddings.conditioning_file("key", texts).exists()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3

    def never(texts: list[str]) -> torch.Tensor:
        raise AssertionError("all of them are on disk")

    monkeypatch.setattr(backbone, "encode_prompts", never)
    torch.testing.assert_close(embed_prompts(backbone, "key", texts), found[0])


def test_a_disk_that_takes_nothing_stops_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    backbone = CheckedDenoiser(toolkit.load_backbone("tiny-digits"), "tiny-digits")
    wanted = embed_prompts(backbone, "a key", ["one", "two"])
    monkeypatch.setattr(embeddings, "write_tree", full)
    torch.testing.assert_close(embed_prompts(backbone, "a new key", ["one", "two"]), wanted)


def test_many_prompts_are_encoded_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = CheckedDenoiser(toolkit.load_backbone("tiny-digits"), "tiny-digits")
    texts = [f"digit {n}" for n in range(7)]
    wanted = embed_prompts(backbone, "at once", texts)
    monkeypatch.setattr(type(backbone.backbone), "prompts_at_once", 3)
    torch.testing.assert_close(embed_prompts(backbone, "by three", texts), wanted)
