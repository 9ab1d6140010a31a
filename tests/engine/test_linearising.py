"""First-order errors agree with finite differences, whatever the batch; stored and replayed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command import bench

import bench as toolkit
from bench.contracts.dataset import Sample
from bench.contracts.strategy import Linearise, Outcome, Problem, Strategy
from bench.engine import batching
from bench.engine.denoising import DenoisingEngine
from bench.errors import UserError
from bench.recordings.recording import open_recording
from bench.recordings.replay import replay
from bench.running.prepare import prepare
from bench.running.resolve import resolve
from bench.running.settings import RunConfig
from bench.store.first_order import read_first_order
from bench.store.folder import read_records

DRAWS = 6
STEP = 0.01
SCREEN = {"draws": 16, "samples": 4}


class Asks:
    """A strategy of the tests: these requests, one after the other, and the replies kept."""

    def __init__(self, requests: list[Linearise]) -> None:
        self.requests, self.replies, self.costs = list(requests), [], []

    def start(self, problem: Problem) -> Asks:
        self.left = list(self.requests)
        return self

    def ask(self) -> Linearise | None:
        return self.left.pop(0) if self.left else None

    def tell(self, request: Linearise, reply) -> None:  # type: ignore[no-untyped-def]
        self.replies.append(reply.values)
        self.costs.append(reply.cost)

    def outcome(self) -> Outcome:
        one = np.zeros(1)
        return Outcome(np.zeros(1, np.int64), one, np.zeros(1, np.int64), 0.0, 0.0, 0.5)


def strategy_of(strategy: str, params: dict[str, int]) -> Strategy:
    return resolve(RunConfig(dataset="digits", strategy=strategy, params=params)).strategy


def engine_of(
    backbone: str, images: int = 1, **settings: object
) -> tuple[DenoisingEngine, list[Sample]]:
    usual = {"dataset": "digits", "strategy": "full", "params": {"draws": DRAWS}}
    run = prepare(RunConfig(**{**usual, "backbone": backbone, **settings}))
    engine = run.open_engine()
    assert isinstance(engine, DenoisingEngine) and run.split is not None
    return engine, list(run.samples(run.split.sample_ids[:images]))


def mixtures() -> list[np.ndarray]:
    uniform, uneven = np.full(10, 0.1), np.arange(1, 11) / 55
    return [uniform, uneven, np.eye(10)[3]]


@pytest.mark.parametrize("backbone", ["sd15", "sd21", "tiny-digits"])
@pytest.mark.parametrize("loss", ["l2", "huber"])
def test_first_order_errors_agree_with_finite_differences(
    backbone: str, loss: str, pipelines: dict[str, Path]
) -> None:
    """`tiny-digits` has pooled text in its time embedding: the gradient must cover both ways in."""
    engine, samples = engine_of(str(pipelines.get(backbone, backbone)), loss=loss)
    everything = np.arange(DRAWS)
    strategy = Asks([Linearise(everything, mixture) for mixture in mixtures()])
    (decided,) = engine.score(samples, strategy)
    assert decided.linearisations == 3 * DRAWS and decided.evaluations == 0
    assert decided.equivalents == pytest.approx(sum(strategy.costs))
    assert sum(strategy.costs) > 3 * DRAWS  # a backward pass is not free
    (latent,) = (latent for _, latent in engine._encoded(samples))
    latents = latent.expand(DRAWS, *latent.shape)
    c = engine.conditioning
    for mixture, found in zip(mixtures(), strategy.replies, strict=True):
        at = torch.einsum("p,pld->ld", torch.from_numpy(mixture).float(), c)

        def error(where: torch.Tensor) -> np.ndarray:
            with torch.no_grad():
                errors = engine._errors_at(
                    torch.from_numpy(everything), latents, where.expand(DRAWS, *where.shape).clone()
                )
            return errors.double().numpy()

        here = error(at)
        wanted = np.stack(
            [
                here + (error(at + STEP * (p - at)) - error(at - STEP * (p - at))) / (2 * STEP)
                for p in c
            ]
        )
        scale = np.abs(wanted - here).max()
        assert scale > 0
        np.testing.assert_allclose(found, wanted, atol=0.02 * scale)
    # At a single prompt the value of that prompt is its exact error.
    np.testing.assert_allclose(strategy.replies[2][3], error(c[3]), rtol=1e-4)


def test_only_the_conditioning_gets_a_gradient(pipelines: dict[str, Path]) -> None:
    engine, samples = engine_of(str(pipelines["sd15"]))
    list(engine.score(samples, Asks([Linearise(np.arange(2), np.full(10, 0.1))])))
    assert all(p.grad is None and not p.requires_grad for p in engine.backbone.unet.parameters())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, pipelines: dict[str, Path]) -> None:
    request = Linearise(np.arange(DRAWS), np.full(10, 0.1))
    tables = {}
    for kind in ("float32", dtype):
        engine, samples = engine_of(str(pipelines["sd15"]), dtype=kind)
        strategy = Asks([request])
        (decided,) = engine.score(samples, strategy)
        assert decided.error is None
        tables[kind] = strategy.replies[0] - strategy.replies[0].mean(axis=0)
    one, other = tables["float32"].ravel(), tables[dtype].ravel()
    assert np.corrcoef(one, other)[0, 1] > 0.98


def test_batch_size_and_memory_change_nothing(
    pipelines: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Linearise(np.arange(DRAWS), np.full(10, 0.1))
    found = []
    for batch_size, most in ((64, 64), (8, 64), (64, 3), (64, 0)):
        engine, samples = engine_of(str(pipelines["sd15"]), batch_size=batch_size)
        backbone, saved = engine.backbone, []
        denoise, save = backbone.denoise, backbone.save_memory

        def small(x_t, t, conditioning, most=most, denoise=denoise, saved=saved):  # type: ignore
            if torch.is_grad_enabled() and len(x_t) > (1 if saved else most):
                raise torch.OutOfMemoryError("simulated")
            return denoise(x_t, t, conditioning)

        def save_memory(save=save, saved=saved):  # type: ignore[no-untyped-def]
            saved.append(True)
            save()

        monkeypatch.setattr(backbone, "denoise", small)
        monkeypatch.setattr(backbone, "save_memory", save_memory)
        strategy = Asks([request])
        list(engine.score(samples, strategy))
        found.append(strategy.replies[0])
        assert saved == ([True] if most == 0 else [])
        assert engine.linear.batch_size == {64: batch_size // 4, 3: 3, 0: 1}[most]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-4)


@pytest.mark.parametrize("depth", [2, 3])
def test_batches_launched_ahead_change_nothing(depth: int) -> None:
    """Both kinds, of many images under way, in batches that seldom match what one asks for."""
    found = []
    for ahead, batch_size in ((1, 64), (depth, 12)):
        engine, samples = engine_of(
            "tiny-digits", 5, strategy="screen-race", params=SCREEN, batch_size=batch_size
        )
        engine.depth = ahead
        strategy = strategy_of("screen-race", SCREEN)
        found.append({d.sample.sample_id: d for d in engine.score(samples, strategy)})
        cost = sum(d.equivalents for d in found[-1].values())
        assert engine.evaluated == pytest.approx(cost)
    assert len(found[0]) == 5
    for sample_id, one in found[0].items():
        other = found[1][sample_id]
        assert one.outcome is not None and other.outcome is not None
        assert list(other.outcome.ranking) == list(one.outcome.ranking)
        assert other.evaluations == one.evaluations and other.linearisations == 4
        np.testing.assert_allclose(other.linearised[0][1], one.linearised[0][1], rtol=1e-4)


@pytest.mark.parametrize("kernel", ["math", "flash"])
def test_a_pinned_kernel_stays_pinned_where_activations_are_recomputed(kernel: str) -> None:
    engine, samples = engine_of("tiny-digits", attention=kernel)
    found = []
    for save in (False, True):
        if save:
            engine.backbone.save_memory()
        strategy = Asks([Linearise(np.arange(DRAWS), np.full(10, 0.1))])
        list(engine.score(samples, strategy))
        found.append(strategy.replies[0])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_the_batch_size_of_linearisations_is_measured_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path))
    measured = []

    def best(engine: object) -> int:
        measured.append(type(engine).__name__)
        return 40 if isinstance(engine, DenoisingEngine) else 20

    monkeypatch.setattr(batching, "best_batch_size", best)
    engine_of("tiny-digits", strategy="race", params={"draws": DRAWS})
    assert measured == ["DenoisingEngine"]  # a strategy without linearisations needs no more
    settings = {"strategy": "screen-race", "params": SCREEN}
    engine, samples = engine_of("tiny-digits", 4, **settings)
    assert measured == ["DenoisingEngine", "Lineariser"]
    assert (engine.batch_size, engine.linear.batch_size) == (40, 20)
    denoise = engine.backbone.denoise

    def small(x_t, t, conditioning):  # type: ignore[no-untyped-def]
        if len(x_t) > (6 if torch.is_grad_enabled() else 40):
            raise torch.OutOfMemoryError("simulated")
        return denoise(x_t, t, conditioning)

    monkeypatch.setattr(engine.backbone, "denoise", small)
    decided = list(engine.score(samples, strategy_of(**settings)))
    assert len(decided) == 4 and all(d.error is None for d in decided)
    assert 2 <= engine.linear.batch_size <= 6 and engine.batch_size == 40
    again = engine_of("tiny-digits", **settings)[0]
    assert again.linear.batch_size == engine.linear.batch_size and len(measured) == 2


def test_linearisations_are_what_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "SECONDS", 0.1)
    monkeypatch.setattr(batching, "SLOW", 60.0)
    engine, _ = engine_of("tiny-digits", batch_size=16)
    denoise, sizes = engine.backbone.denoise, []

    def seen(x_t, t, conditioning):  # type: ignore[no-untyped-def]
        assert torch.is_grad_enabled() and conditioning.requires_grad
        sizes.append(len(x_t))
        return denoise(x_t, t, conditioning)

    monkeypatch.setattr(engine.backbone, "denoise", seen)
    assert batching.best_batch_size(engine.linear) in sizes
    assert sizes[:4] == [1, 1, 8, 8]


@pytest.mark.slow
def test_linearisations_beside_a_compiled_network() -> None:
    found = []
    for switched in (False, True):
        engine, samples = engine_of("tiny-digits", batch_size=16, compile=switched)
        strategy = Asks([Linearise(np.arange(DRAWS), np.full(10, 0.1))])
        list(engine.score(samples, strategy))
        found.append(strategy.replies[0])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    summary = toolkit.run(
        "digits",
        strategy="full-linearised",
        params={"draws": 16},
        limit=10,
        save_errors=True,
        results=str(tmp_path_factory.mktemp("recorded")),
    )
    cost = summary["cost"]
    assert cost["linearisations"] == 160 and cost["evaluations_per_image"] == 160
    assert cost["evaluation_equivalents_per_image"] > 160 + 16
    return Path(summary["results_dir"])


def test_a_replay_decides_and_costs_what_the_live_run_does(recorded: Path, tmp_path: Path) -> None:
    params = {"draws": 16, "samples": 4}
    live = toolkit.run(
        "digits", strategy="screen-race", params=params, limit=10, results=str(tmp_path)
    )
    replayed = replay(recorded, "screen-race", {"samples": 4}, tmp_path)
    a, b = (read_records(Path(run["results_dir"])) for run in (live, replayed))
    for sample_id, record in a.items():
        other = b[sample_id]
        assert other["prediction"] == record["prediction"]
        assert other["evaluations"] == record["evaluations"]
        assert other["linearisations"] == record["linearisations"] == 4
    price = open_recording(recorded).linearisation_cost
    cost = replayed["cost"]
    assert cost["evaluation_equivalents"] == pytest.approx(
        cost["evaluations"] + 40 * price, abs=0.1
    )


def test_first_order_parts_are_kept_by_mixture(recorded: Path) -> None:
    for sample_id in read_records(recorded):
        ((mixture, table),) = read_first_order(recorded / "first_order", sample_id, (10, 16))
        np.testing.assert_allclose(mixture, 0.1)
        assert np.isfinite(table).all()
        # The mean over the prompts is the exact error at the mean: below most prompts' errors.
        errors = open_recording(recorded).errors(sample_id)
        assert np.corrcoef(table.mean(axis=0), errors.mean(axis=0))[0, 1] > 0.9


def test_what_cannot_be_linearised_is_refused_before_the_work(
    recorded: Path, tmp_path: Path, pipelines: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench_plugins.backbones.stable_diffusion import StableDiffusion

    monkeypatch.setattr(StableDiffusion, "can_linearise", False)
    with pytest.raises(UserError, match=r"needs gradients .*'tiny-digits' does not"):
        toolkit.run("digits", strategy="screen-race", results=str(tmp_path))
    plain = toolkit.run(
        "digits",
        strategy="full",
        params={"draws": 2},
        limit=1,
        save_errors=True,
        results=str(tmp_path),
    )
    with pytest.raises(UserError, match="full-linearised --save-errors"):
        replay(Path(plain["results_dir"]), "screen-race", {"samples": 2}, tmp_path)


def test_learn_screen_and_sweep(recorded: Path, tmp_path: Path) -> None:
    done = bench("learn-screen", recorded, "--json", "--out", tmp_path / "screen.json")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "screen.json").read_text()) == done.json
    screens = {screen["samples"]: screen for screen in done.json["screens"]}
    assert list(screens) == [2, 4, 8, 16]
    assert screens[8]["recall"]["8"] >= screens[8]["recall"]["1"] > 0.5
    assert screens[8]["risks"]["0.1"]["reach"] >= 0  # ten images: 0.1 is possible, 0.05 is not
    assert screens[8]["risks"]["0.05"] == {"reach": None, "kept": 10.0}
    shown = bench("learn-screen", recorded)
    assert shown.code == 0 and "A linearised draw cost" in shown.out
    rows = bench("sweep", recorded, "--json").json
    assert {"screen-race", "race"} <= {row["strategy"]["name"] for row in rows}
