"""The engine's own promises: the same numbers however cells are batched, and memory that ends."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command import bench
from helpers.engines import limit_memory, outcomes, prepared

import bench as toolkit
from bench.contracts.dataset import Sample
from bench.engine import batching
from bench.engine.acceleration import accelerate, set_precision
from bench.engine.denoising import Flight
from bench.engine.embeddings import embed_prompts
from bench.engine.transfer import ahead
from bench.errors import UserError
from bench.machine.speed import remembered_batch_size


@pytest.fixture(scope="module")
def wanted() -> dict[str, Any]:
    return outcomes(*prepared())


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for sample_id, decided in wanted.items():
        other = found[sample_id]
        assert other.evaluations == decided.evaluations
        assert list(other.outcome.ranking) == list(decided.outcome.ranking)
        for (asked, errors), (asked_too, errors_too) in zip(
            decided.cells, other.cells, strict=True
        ):
            assert list(asked.draws) == list(asked_too.draws)
            np.testing.assert_allclose(errors_too, errors, rtol=2e-5)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_cells_do_not_depend_on_batches_or_images_under_way(
    depth: int, batch_size: int, wanted: dict[str, Any]
) -> None:
    engine, run, samples = prepared(batch_size=batch_size)
    engine.depth = depth
    assert_same(outcomes(engine, run, samples[::-1]), wanted)


@pytest.mark.parametrize("change", [{"layout": "channels-last"}, {"attention": "math"}])
def test_switches_move_last_digits_only(change: dict[str, str], wanted: dict[str, Any]) -> None:
    assert_same(outcomes(*prepared(**change)), wanted)


def test_the_last_batches_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, run, samples = prepared(batch_size=64)
    sizes = []
    denoise = engine.backbone.denoise
    monkeypatch.setattr(
        engine.backbone, "denoise", lambda *args: sizes.append(len(args[0])) or denoise(*args)
    )
    outcomes(engine, run, samples)
    assert sizes[0] == 64 and set(sizes) <= {8, 16, 32, 64} and min(sizes) < 64
    engine.one_shape = True
    sizes.clear()
    outcomes(engine, run, samples)
    assert set(sizes) == {64}


def test_images_under_way_do_not_grow_with_the_dataset() -> None:
    engine, run, samples = prepared(limit=3)
    flights = []

    def many(n: int) -> Iterator[Sample]:
        for position in range(n):
            if position % 50 == 49:
                flights.append(sum(type(o) is Flight for o in gc.get_objects()))
            yield Sample(str(position), 0, samples[position % 3].image)

    assert sum(1 for _ in engine.score(many(200), run.strategy)) == 200
    assert len(flights) == 4 and max(flights) <= 12 and flights[-1] <= flights[0] + 8


def test_folding_changes_no_number(pipelines: dict[str, Path]) -> None:
    """`tiny-digits` has pooled text in its time embedding, `sd15` cross-attention alone."""
    from bench_plugins.backbones._folding import Folded, unfold_prompts

    for name in ("tiny-digits", str(pipelines["sd15"])):
        backbone = toolkit.load_backbone(name)
        conditioning = backbone.encode_prompts(["one", "two", "three"])
        x_t, t = torch.randn(6, *backbone.latent_shape), torch.tensor([3, 900] * 3)
        prompt = torch.tensor([2, 0, 1, 1, 0, 2])
        with torch.inference_mode():
            exact = backbone.denoise(x_t, t, conditioning[prompt])
            backbone.fold_prompts(conditioning.flip(0))
            folded = backbone.fold_prompts(conditioning)  # anew, not on top
            assert folded.shape == (3, 1, 1)
            torch.testing.assert_close(backbone.denoise(x_t, t, folded[prompt]), exact)
            # A conditioning is still taken as such, for whoever wants its gradient.
            torch.testing.assert_close(backbone.denoise(x_t, t, conditioning[prompt]), exact)
        assert any(isinstance(m, Folded) for m in backbone.unet.modules())
        unfold_prompts(backbone.unet)
        assert not any(isinstance(m, Folded) for m in backbone.unet.modules())


def test_folding_is_left_alone_where_it_would_take_too_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench_plugins.backbones import _folding

    monkeypatch.setattr(_folding, "LIMIT", 1000)
    backbone = toolkit.load_backbone("tiny-digits")
    conditioning = backbone.encode_prompts(["one"])
    assert backbone.fold_prompts(conditioning) is conditioning


def test_a_batch_size_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    sizes = []
    monkeypatch.setattr(batching, "best_batch_size", lambda engine: sizes.append(1) or 24)
    for _ in range(2):
        engine = prepared(batch_size="auto", seed=1)[0]
        assert engine.batch_size == 24
    assert len(sizes) == 1


def test_the_best_batch_size_is_the_smallest_of_the_fast_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device whose time does not grow up to 64 cells and is proportional beyond."""
    now = 0.0
    monkeypatch.setattr(batching.time, "perf_counter", lambda: now)

    class Device:
        batch_size = 7
        backbone = toolkit.load_backbone("tiny-digits")

        def rehearse(self, size: int) -> None:
            nonlocal now
            if size > 128:
                raise torch.OutOfMemoryError("simulated")
            now += 0.02 * max(1, size / 64)

    assert batching.best_batch_size(Device()) == 64  # type: ignore[arg-type]

    class Slow(Device):
        def rehearse(self, size: int) -> None:
            nonlocal now
            now += 0.3

    assert batching.best_batch_size(Slow()) == 7  # type: ignore[arg-type]


def test_memory_that_ends_is_remembered(
    wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "best_batch_size", lambda engine: 40)
    engine, run, samples = prepared(batch_size="auto", seed=0, layout="channels-last")
    sizes = limit_memory(monkeypatch, engine, cells=12)
    assert_same(outcomes(engine, run, samples), wanted)
    assert engine.batch_size == 10 and sizes[:3] == [40, 20, 10] and max(sizes[2:]) == 10
    assert prepared(batch_size="auto", layout="channels-last")[0].batch_size == 10
    assert remembered_batch_size("another") is None


def test_images_are_encoded_by_halves_where_memory_ends(
    wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, run, samples = prepared()
    encode, sizes = engine.backbone.encode_images, []

    def limited(images: list[Any]) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("simulated")
        return encode(images)

    monkeypatch.setattr(engine.backbone, "encode_images", limited)
    assert_same(outcomes(engine, run, samples), wanted)
    assert sizes == [8, 4, 2, 2, 2]


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


def test_images_opened_by_a_thread_give_the_same(
    wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.engine import denoising

    monkeypatch.setattr(denoising, "THREADLESS", ())
    assert_same(outcomes(*prepared()), wanted)


def test_the_attention_kernel_is_pinned() -> None:
    from torch.profiler import profile

    operators = {}
    for kernel in ("math", "flash"):
        engine = prepared(attention=kernel)[0]
        with profile() as profiled:
            engine.rehearse(2)
        operators[kernel] = {e.key for e in profiled.key_averages() if "dot_product" in e.key}
    assert any("math" in name for name in operators["math"])
    assert any("flash" in name for name in operators["flash"])
    assert not any("flash" in name for name in operators["math"])


def test_switches_that_cannot_work_are_refused(tmp_path: Path) -> None:
    for options, hint in (
        (["--attention", "cudnn"], "cannot be used on cpu"),
        (["--tf32", "--device", "cpu"], "NVIDIA"),
        (["--batch-size", "some"], "--batch-size"),
        (["--batch-size", "0"], "--batch-size"),
    ):
        done = bench("run", "digits", *options, "--results", tmp_path)
        assert done.code == 2 and hint in done.err and "Traceback" not in done.err, done.err

    class Bare:
        device = torch.device("cpu")

    with pytest.raises(UserError, match="no `network`"):
        accelerate(Bare(), "auto", "auto", compiled=True)


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


def test_tf32_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    set_precision(torch.device("cpu"), tf32=False)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.slow
def test_a_compiled_network_gives_the_same(wanted: dict[str, Any]) -> None:
    engine, run, samples = prepared(compile=True)
    assert engine.one_shape and engine.backbone.network._compiled_call_impl is not None
    assert_same(outcomes(engine, run, samples), wanted)
