"""The engine's own promises: the same numbers however cells are batched, and memory that ends."""

from collections.abc import Iterator
from weakref import ReferenceType, ref

import pytest
import torch
from helpers.engines import assert_same, before_passes, outcomes, prepared
from helpers.matrix import matrix
from PIL.Image import Image

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided


@pytest.mark.parametrize(("batch_size", "depth"), matrix([(1, 2), (5, 3), (64, 1)], [(64, 1)]))
def test_cells_do_not_depend_on_batches_or_images_under_way(
    batch_size: int, depth: int, wanted: dict[str, Decided]
) -> None:
    engine, run, samples = prepared(batch_size=batch_size)
    engine.depth = depth
    assert_same(outcomes(engine, run, samples[::-1]), wanted)


@pytest.mark.parametrize(
    "change",
    matrix([{"layout": "channels-last"}, {"attention": "math"}], [{"layout": "channels-last"}]),
)
def test_switches_move_last_digits_only(change: dict[str, str], wanted: dict[str, Decided]) -> None:
    assert_same(outcomes(*prepared(**change)), wanted)


def test_the_last_batches_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, run, samples = prepared(batch_size=64)
    sizes: list[int] = []
    before_passes(monkeypatch, engine.backbone, lambda x_t, _: sizes.append(len(x_t)))
    outcomes(engine, run, samples)
    assert sizes[0] == 64 and set(sizes) <= {8, 16, 32, 64} and min(sizes) < 64
    engine.one_shape = True
    sizes.clear()
    outcomes(engine, run, samples)
    assert set(sizes) == {64}


@pytest.mark.long
def test_images_under_way_do_not_grow_with_the_dataset() -> None:
    engine, run, samples = prepared(limit=3, params={"draws": 2})
    seen: list[ReferenceType[Sample]] = []
    counts = []  # of those that are still held whenever another one is asked for

    def many(n: int) -> Iterator[Sample]:
        for position in range(n):
            sample = Sample(str(position), 0, samples[position % 3].image)
            seen.append(ref(sample))
            counts.append(sum(reference() is not None for reference in seen))
            yield sample

    assert sum(1 for _ in engine.score(many(40), run.strategy)) == 40
    assert max(counts[20:]) <= max(counts[:20]) < 20


def test_images_are_encoded_by_halves_where_memory_ends(
    wanted: dict[str, Decided], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, run, samples = prepared()
    encode = engine.backbone.encode_images
    sizes: list[int] = []

    def limited(images: list[Image]) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("simulated")
        return encode(images)

    monkeypatch.setattr(engine.backbone, "encode_images", limited)
    assert_same(outcomes(engine, run, samples), wanted)
    assert sizes == [4, 2, 2]


def test_images_opened_by_a_thread_give_the_same(
    wanted: dict[str, Decided], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.engine import denoising as latents

    monkeypatch.setattr(latents, "THREADLESS", ())
    assert_same(outcomes(*prepared()), wanted)
