"""Mixtures of trees in chunks and at once; a thread that makes things ahead of time."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.refusals import refused

from bench.engine import linearising
from bench.engine.linearising import Mixing
from bench.engine.transfer import Pool, ahead
from bench.engine.trees import leaves

CPU = torch.device("cpu")


def a_tree(prompts: int = 6) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "text": torch.randn(prompts, 5, 3, generator=generator) + 20,
        "pooled": torch.randn(prompts, 4, generator=generator).bfloat16(),
        "ids": torch.arange(7).expand(prompts, 7),
    }


@pytest.mark.parametrize("chunk", [1, 200, 10**9])
def test_a_mixture_is_its_definition(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearising, "CHUNK_BYTES", chunk)
    tree = a_tree()
    mix = Mixing(Pool(tree, CPU))
    weights = np.random.default_rng(0).dirichlet(np.ones(6))
    tree_of_one = mix.mix(weights)
    assert tree_of_one is mix.mix(weights)  # kept
    mixed = leaves(tree_of_one)
    for path, tolerance in (("text", 1e-6), ("pooled", 1e-2)):
        wanted = torch.einsum("p,p...->...", torch.from_numpy(weights), tree[path].double())
        assert mixed[path].dtype == tree[path].dtype and mixed[path].shape[0] == 1
        torch.testing.assert_close(mixed[path][0].double(), wanted, rtol=tolerance, atol=1e-2)
    assert torch.equal(mixed["ids"], tree["ids"][:1])


@pytest.mark.parametrize("chunk", [1, 200, 10**9])
def test_first_order_errors_are_their_definition(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of errors that are linear in the conditioning they are the errors themselves."""
    monkeypatch.setattr(linearising, "CHUNK_BYTES", chunk)
    tree = a_tree()
    mix = Mixing(Pool(tree, CPU))
    generator = torch.Generator().manual_seed(1)
    slopes = {
        p: torch.randn(2, *tree[p].shape[1:], generator=generator) for p in ("text", "pooled")
    }

    def error(values: dict[str, torch.Tensor]) -> torch.Tensor:
        terms = [(slopes[p] * values[p].float()).flatten(1).sum(dim=1) for p in slopes]
        return torch.stack(terms).sum(dim=0)

    mixtures = np.stack([np.full(6, 1 / 6), np.eye(6)[4]])
    mixed = [leaves(mix.mix(mixture)) for mixture in mixtures]
    references = {p: torch.cat([one[p] for one in mixed]) for p in slopes}
    found = mix.first_order(error(references), slopes, references)
    wanted = torch.stack([error({p: tree[p][[i]] for p in slopes}) for i in range(6)], dim=1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_what_is_not_floating_must_be_shared_or_declared() -> None:
    tree = {**a_tree(), "mask": torch.eye(6).bool()}
    with refused("'mask'"):
        Mixing(Pool(tree, CPU))

    def any_of(rest: Any, weights: torch.Tensor) -> Any:
        return {"mask": rest["mask"][weights > 0].any(dim=0, keepdim=True), "ids": rest["ids"][:1]}

    mixed = leaves(Mixing(Pool(tree, CPU), any_of).mix(np.array([0.5, 0, 0.5, 0, 0, 0])))
    assert mixed["mask"].tolist() == [[True, False, True, False, False, False]]
    with refused("leaf"):
        Mixing(Pool({"label": torch.arange(3)}, CPU))


def test_a_pool_on_the_host_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    tree = a_tree()
    near, far = Pool(tree, CPU), Pool(tree, CPU)
    far.near = False
    chosen = np.array([4, 0, 4, 2])
    one, other = (leaves(p.take(chosen, torch.from_numpy(chosen))) for p in (near, far))
    for path, leaf in one.items():
        assert torch.equal(leaf, tree[path][chosen]) and torch.equal(other[path], leaf)


def test_a_thread_ahead_keeps_order_and_errors_and_ends() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    before = threading.active_count()
    stream = ahead(items(), depth=2)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    stream.close()
    assert len(made) <= 10 and threading.active_count() == before
    assert list(ahead(range(50), depth=3)) == list(range(50))

    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    stream = ahead(failing(), depth=2)
    assert next(stream) == 1
    with pytest.raises(KeyError, match="two"):
        next(stream)
