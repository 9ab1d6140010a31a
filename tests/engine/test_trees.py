"""Conditioning trees: rows, joins, files; and what is no tree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.refusals import refused
from safetensors.torch import load_file

from bench.engine import embeddings
from bench.engine.embeddings import read_tree, write_tree
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
