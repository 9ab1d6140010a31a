"""First-order errors agree with finite differences, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.engines import errors_at, network_of, outcomes, prepared
from helpers.matrix import matrix
from helpers.tables import Errors, concluded

from bench.contracts.dataset import Sample
from bench.contracts.strategy import Floats, Linearise, Outcome, Problem, Reply, Strategy
from bench.engine.asking import CheckedStrategy
from bench.engine.denoising import DenoisingEngine
from bench.engine.trees import leaves
from bench.running.content import PreparedRun

DRAWS = 6
STEP = 0.01
SCREEN = {"draws": 16, "samples": 4}


class Asks(Strategy):
    """A strategy of the tests: these requests, one after the other, and the replies kept."""

    def __init__(self, requests: list[Linearise]) -> None:
        self.draws = DRAWS
        self.requests = list(requests)
        self.replies: list[Errors] = []
        self.costs: list[float] = []

    def start(self, problem: Problem) -> Asks:
        self.left = list(self.requests)
        return self

    def ask(self) -> Linearise | None:
        return self.left.pop(0) if self.left else None

    def tell(self, request: Linearise, reply: Reply) -> None:
        self.replies.append(reply.values)
        self.costs.append(reply.cost)

    def outcome(self) -> Outcome:
        order = np.arange(10)
        return Outcome(order, np.zeros(10), np.zeros(10, np.int64), 0.0, 0.0, 0.5)

    def checked(self) -> CheckedStrategy:
        return CheckedStrategy(self, "the strategy")


def engine_of(
    backbone: str, images: int = 1, **settings: Any
) -> tuple[DenoisingEngine, PreparedRun, list[Sample]]:
    usual = {"strategy": "full", "params": {"draws": DRAWS}, "batch_size": 16}
    return prepared(**{**usual, **settings}, backbone=backbone, limit=images)


def linearised(engine: DenoisingEngine, samples: list[Sample]) -> Errors:
    """Return the first-order errors of all draws at the uniform mixture."""
    strategy = Asks([Linearise(np.arange(DRAWS), np.full(10, 0.1))])
    list(engine.score(samples, strategy.checked()))
    return strategy.replies[0]


def mixtures() -> list[Floats]:
    uniform, uneven = np.full(10, 0.1), np.arange(1, 11) / 55
    return [uniform, uneven, np.eye(10)[3]]


@pytest.mark.parametrize(
    ("backbone", "loss"),
    matrix([("sd15", "l2"), ("sd21", "huber"), ("tiny-digits", "l2")], [("tiny-digits", "l2")]),
)
def test_first_order_errors_agree_with_finite_differences(
    backbone: str, loss: str, pipelines: dict[str, Path]
) -> None:
    """`tiny-digits` has pooled text in its time embedding: the gradient must cover both ways in."""
    engine, _, samples = engine_of(str(pipelines.get(backbone, backbone)), loss=loss)
    some = np.array([0, 2, 5])
    strategy = Asks([Linearise(some, mixture) for mixture in mixtures()])
    (decided,) = engine.score(samples, strategy.checked())
    assert decided.linearisations == 3 * len(some) and decided.evaluations == 0
    assert decided.equivalents == pytest.approx(sum(strategy.costs))
    assert sum(strategy.costs) > 3 * len(some)  # a backward pass is not free
    (images,) = (images for _, images in engine.latents.of(samples))
    assert isinstance(images, list)
    latent = images[0][0]  # the only view of the only image
    latents = latent.expand(len(some), *latent.shape)
    (c,) = leaves(engine.evaluator.pool.tree).values()
    for mixture, found in zip(mixtures(), strategy.replies, strict=True):
        at = torch.einsum("p,pld->ld", torch.from_numpy(mixture).float(), c)

        def errors(where: torch.Tensor) -> Floats:
            """Float64 [places, draws]."""
            places = len(where)
            with torch.no_grad():
                flat = errors_at(
                    engine,
                    np.tile(some, places),
                    latents.repeat(places, 1, 1, 1),
                    {"0.0": where.repeat_interleave(len(some), dim=0)},
                )
            return np.asarray(flat.double()).reshape(places, len(some))

        here = errors(at[None])
        ahead, behind = (errors(at + step * (c - at)) for step in (STEP, -STEP))
        wanted = here + (ahead - behind) / (2 * STEP)
        scale = np.abs(wanted - here).max()
        assert scale > 0
        np.testing.assert_allclose(found, wanted, atol=0.02 * scale)
    # At a single prompt the value of that prompt is its exact error.
    np.testing.assert_allclose(strategy.replies[2][3], errors(c[3:4])[0], rtol=1e-4)


def test_only_the_conditioning_gets_a_gradient(pipelines: dict[str, Path]) -> None:
    engine, _, samples = engine_of(str(pipelines["sd15"]))
    linearised(engine, samples)
    assert all(
        p.grad is None and not p.requires_grad
        for p in network_of(engine.backbone).network.parameters()
    )


@pytest.mark.long
def test_batches_launched_ahead_change_nothing() -> None:
    """Both kinds, of many images under way, in batches that seldom match what one asks for."""
    found = []
    for depth, batch_size in ((1, 64), (3, 12)):
        engine, run, samples = engine_of(
            "tiny-digits", 4, strategy="screen-race", params=SCREEN, batch_size=batch_size
        )
        engine.depth = depth
        found.append(outcomes(engine, run, samples))
        cost = sum(d.equivalents for d in found[-1].values())
        assert engine.evaluated == pytest.approx(cost)
    assert len(found[0]) == 4
    for sample_id, one in found[0].items():
        other = found[1][sample_id]
        assert list(concluded(other).ranking) == list(concluded(one).ranking)
        assert other.evaluations == one.evaluations and other.linearisations == 4
        np.testing.assert_allclose(other.linearised[0][1], one.linearised[0][1], rtol=1e-4)


@pytest.mark.parametrize("kernel", matrix(["math", "flash"], ["math"]))
def test_a_pinned_kernel_stays_pinned_where_activations_are_recomputed(kernel: str) -> None:
    engine, _, samples = engine_of("tiny-digits", attention=kernel)
    found = []
    for save in (False, True):
        if save:
            network_of(engine.backbone).save_memory()
        found.append(linearised(engine, samples))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


@pytest.mark.slow
def test_linearisations_beside_a_compiled_network() -> None:
    found = []
    for switched in (False, True):
        engine, _, samples = engine_of("tiny-digits", batch_size=16, compile=switched)
        found.append(linearised(engine, samples))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
