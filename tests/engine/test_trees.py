"""Conditioning trees: rows, joins, files; and the cache of the embeddings of prompts."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.refusals import refused, warned
from safetensors.torch import load_file

import bench as toolkit
from bench.engine import embeddings
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.embeddings import embed_prompts, read_tree, write_tree
from bench.engine.trees import (
    Tree,
    TreeError,
    check_conditioning,
    count,
    grown,
    joined,
    leaves,
    rows,
    size,
)
from bench.machine.cache import SEAL


def a_tree(prompts: int = 5) -> dict[str, Any]:
    return {
        "text": {
            "embeddings": torch.randn(prompts, 7, 4).bfloat16(),
            "mask": torch.rand(prompts, 7) > 0.5,
        },
        "pooled": torch.randn(prompts, 6),
        "label": torch.arange(prompts),
    }


def assert_same(one: Tree, other: Tree) -> None:
    found, wanted = leaves(one), leaves(other)
    assert found.keys() == wanted.keys()
    for path, leaf in wanted.items():
        assert found[path].dtype == leaf.dtype and torch.equal(found[path], leaf), path


@pytest.mark.parametrize("tree", [a_tree(), torch.randn(5, 3)], ids=["nested", "tensor"])
def test_rows_joins_and_paths(tree: Tree) -> None:
    chosen = torch.tensor([4, 0, 0])
    picked = rows(tree, chosen)
    assert count(tree) == 5 and count(picked) == 3
    for path, leaf in leaves(picked).items():
        assert torch.equal(leaf, leaves(tree)[path][chosen])
    assert_same(joined([rows(tree, slice(0, 2)), rows(tree, slice(2, 5))]), tree)
    assert_same(grown(leaves(tree)), tree)
    assert size(tree) == sum(x.numel() * x.element_size() for x in leaves(tree).values())


@pytest.mark.parametrize("tree", [a_tree(), torch.randn(5, 3)], ids=["nested", "tensor"])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_file_is_written_in_chunks_and_read_back(tree: Tree, chunk: int, tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    write_tree(path, (rows(tree, slice(i, i + chunk)) for i in range(0, 5, chunk)), 5)
    found = read_tree(path)
    assert found is not None
    assert_same(found, tree)
    assert len(load_file(path)) == len(leaves(tree))  # a safetensors file like any other
    assert {file.name for file in tmp_path.iterdir()} == {path.name, path.name + SEAL}


def test_a_file_that_is_not_whole_is_none(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    assert read_tree(path) is None
    write_tree(path, [a_tree()], 5)
    whole = path.read_bytes()
    for damaged in (whole[:-7], whole[:20], b"", b"x" * 100):
        path.write_bytes(damaged)
        assert read_tree(path) is None


def test_a_chunk_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[Tree]:
        yield rows(a_tree(), slice(0, 2))
        raise KeyError("the encoder")

    with pytest.raises(KeyError):
        write_tree(tmp_path / "set.safetensors", chunks(), 5)
    longer = {"pooled": torch.zeros(3, 9)}
    with refused("lengths", kind=TreeError):
        write_tree(tmp_path / "set.safetensors", [{"pooled": torch.zeros(2, 6)}, longer], 5)
    assert list(tmp_path.iterdir()) == []


def test_every_dtype_is_kept(tmp_path: Path) -> None:
    tree = {name: torch.ones(3, 2).to(getattr(torch, name)) for name in embeddings.DTYPES}
    write_tree(tmp_path / "set", [tree], 3)
    found = read_tree(tmp_path / "set")
    assert found is not None
    assert_same(found, tree)


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        ({"a": [1, 2]}, "'a'"),
        ({}, "dict"),
        ({"a": {}}, "'a'"),
        ({"a/b": torch.zeros(2)}, "'a/b'"),
        ({3: torch.zeros(2)}, "name 3"),
        ({"a": {"b": torch.tensor([[0.0], [float("nan")]])}}, "'a/b' of the prompt 'two'"),
        (torch.tensor([float("inf"), 0.0]), "'one'"),
    ],
)
def test_what_is_no_conditioning(tree: Any, named: str) -> None:
    with refused(named, kind=TreeError):
        check_conditioning(tree, ["one", "two"])


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
