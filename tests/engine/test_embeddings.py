"""Prompts are encoded once, and kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import bench as toolkit
from bench.engine.embeddings import embed_prompts


def test_embeddings_are_shared_by_runs_that_begin_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    backbone, texts = toolkit.load_backbone("tiny-digits"), ["one", "two", "three"]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: embed_prompts(backbone, "key", texts), range(4)))
    for conditioning in found:
        torch.testing.assert_close(conditioning, found[0])
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 3 and not [p for p in tmp_path.rglob(".*") if p.is_file()]
    files[0].write_bytes(files[0].read_bytes()[:-7])  # damaged: encoded again
    torch.testing.assert_close(embed_prompts(backbone, "key", texts), found[0])
    embed_prompts(backbone, "another backbone", texts[:1])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4

    def never(texts: list[str]) -> torch.Tensor:
        raise AssertionError("all of them are on disk")

    monkeypatch.setattr(backbone, "encode_prompts", never)
    torch.testing.assert_close(embed_prompts(backbone, "key", texts[::-1]), found[0].flip(0))


def test_many_prompts_are_encoded_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    asked: list[int] = []

    class Encoder:
        device = torch.device("cpu")

        def encode_prompts(self, texts: Any) -> torch.Tensor:
            asked.append(len(texts))
            return torch.tensor([[[float(text)]] for text in texts])

    encoder: Any = Encoder()
    found = embed_prompts(encoder, "key", [str(n) for n in range(150)])
    assert asked == [64, 64, 22] and found.flatten().tolist() == list(range(150))
    assert embed_prompts(encoder, "key", ["149"]).item() == 149 and len(asked) == 3
