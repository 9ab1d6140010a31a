"""Every kind of target and every estimand: a cell's error is that of the oracle's definition."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from helpers.flows import edm_sigmas
from helpers.matrix import matrix
from helpers.tables import make
from oracle.reference import cell_errors as cell_errors_again
from PIL import Image

from bench.contracts.dataset import Sample
from bench.contracts.levels import (
    Levels,
    diffusion_levels,
    edm_levels,
    flow_levels,
)
from bench.contracts.strategy import Problem
from bench.engine import scoring
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine, Latents
from bench.engine.scoring import (
    OwnNoise,
    Scoring,
    SharedNoise,
    cell_errors,
    coefficients,
    sampled,
)
from bench.inputs.draws import generate_noise, parse_plan
from bench.inputs.estimand import Loss
from bench.inputs.prompts import make_columns

ABAR, FLOW = np.linspace(0.99, 0.01, 20), {"num_train_timesteps": 20, "shift": 3.0}
TABLES: dict[str, Levels] = {
    "epsilon": diffusion_levels(ABAR, "epsilon"),
    "x_0": diffusion_levels(ABAR, "sample"),
    "v": diffusion_levels(ABAR, "v_prediction"),
    "flow": flow_levels(FLOW),
    "reversed and negated": flow_levels(FLOW, scale=1.0, reverse=True).answering(
        np.ones(20), -np.ones(20)
    ),
    "divided": flow_levels(FLOW).answering(np.full(20, -0.5), np.full(20, 0.5)),
    "edm": edm_levels(edm_sigmas(20)),
}
SHAPE, ROWS, SEED = (3, 4, 4), np.array([1, 7, 12, 18]), 5
TEXTS = ("one", "two", "three")


class Pixels:
    """A model of pixels whose conditioning has text, a pooled part, a mask and a label."""

    latent_shape, resolution, device = SHAPE, 4, torch.device("cpu")

    def __init__(self, levels: Levels) -> None:
        self.levels = levels

    def encode_images(self, images: Any) -> torch.Tensor:
        pixels = np.stack([np.asarray(image.convert("RGB").resize((4, 4))) for image in images])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1

    def posterior(self, images: Any) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.encode_images(images)
        return mean, 0.1 + mean.abs()

    def encode_prompts(self, texts: Any) -> dict[str, Any]:
        n = torch.tensor([float(len(text)) for text in texts])
        return {
            "text": {"embeddings": n[:, None, None] * torch.ones(1, 2, 3) / 10, "label": n.long()},
            "pooled": n[:, None] / 7 + torch.arange(2),
        }

    def encode_null(self) -> dict[str, Any]:
        return self.encode_prompts([""])

    def denoise(self, x_t: Any, t: Any, conditioning: Any) -> torch.Tensor:
        shift = conditioning["text"]["embeddings"].mean(dim=(1, 2)) * conditioning["pooled"][:, 1]
        shift = shift + 0.01 * conditioning["text"]["label"] + 0.001 * t
        answer: torch.Tensor = torch.tanh(x_t * 0.7) + shift[:, None, None, None]
        return answer


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((8, 8), level).save(file, "png")
    return file.getvalue()


SAMPLES = [Sample(f"image-{i}", 0, {"bytes": png(20 + 30 * i), "path": None}) for i in range(3)]


@torch.no_grad()
def by_definition(
    levels: Levels, x_0: Any, eps: Any, loss: str, space: str, guidance: float | None
) -> Any:  # fmt: skip
    """Return the errors of all texts, [3, N], of one image by the oracle's definition."""
    columns = (levels.alpha, levels.sigma, levels.p, levels.q)
    rows = [torch.from_numpy(c[ROWS].astype(float)).view(-1, 1, 1, 1) for c in columns]
    x_t = rows[0] * x_0.double() + rows[1] * eps.double()
    model, t = Pixels(levels), torch.from_numpy(levels.time[ROWS])
    answers = [model.denoise(x_t, t, model.encode_prompts([text])) for text in (*TEXTS, "")]
    scale = 1 if guidance is None else guidance
    null = 0 if guidance is None else answers[-1]
    return torch.stack(
        [
            cell_errors_again(null + scale * (answer - null), x_0, eps, rows, space, loss)
            for answer in answers[:-1]
        ]
    )


def engine_of(
    table: str, loss: Loss, space: str, batch_size: int = 5, guidance: float | None = None,
    own: bool = False, sample: bool = False,
) -> DenoisingEngine:  # fmt: skip
    backbone = CheckedDenoiser(Pixels(TABLES[table]), "pixels")
    plan, draws = parse_plan("grid"), len(ROWS)
    shared = SharedNoise(plan.make_noise(SEED, draws, SHAPE), backbone.device)
    null_cost = float(guidance is not None)
    return DenoisingEngine(
        backbone,
        backbone.encode_prompts(TEXTS if guidance is None else [*TEXTS, ""]),
        Problem(np.arange(3), ROWS, np.ones(draws), null_cost=null_cost),
        make_columns(np.arange(3), "best"),
        Scoring(
            coefficients(backbone.levels, ROWS, space, backbone.device),
            OwnNoise(plan, SEED, SHAPE, backbone.device) if own else shared,
            loss,
            guidance,
        ),
        batch_size,
        latents=Latents(backbone, SEED, sample),
    )


def check(table: str, loss: Loss, space: str, **how: Any) -> None:
    engine, model = engine_of(table, loss, space, **how), Pixels(TABLES[table])
    for decided in engine.score(SAMPLES, make("full", len(ROWS))):
        name, image = (
            decided.sample.sample_id,
            Image.open(io.BytesIO(decided.sample.image["bytes"] or b"")),
        )
        x_0 = model.encode_images([image])[0]
        if how.get("sample"):
            x_0 = sampled(torch.cat(model.posterior([image])), SEED, name)
        ((_, found),) = decided.cells
        own = name if how.get("own") else None
        eps = [torch.from_numpy(generate_noise(SEED, k, SHAPE, own)) for k in range(len(ROWS))]
        wanted = by_definition(
            TABLES[table], x_0, torch.stack(eps), loss, space, how.get("guidance")
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert decided.evaluations == 12 + (0 if how.get("guidance") is None else 4)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("space", ["prediction", "epsilon", "sample", "v"])
def test_every_target_in_every_space(table: str, space: str) -> None:
    check(table, "l2", space)


@pytest.mark.parametrize("table", ["v", "flow", "edm"])
@pytest.mark.parametrize("loss", ["l1", "huber", "norm"])
def test_every_loss(table: str, loss: Loss) -> None:
    check(table, loss, "sample")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("loss", ["l2", "l1", "huber", "norm"])
@pytest.mark.parametrize("batch_size", matrix([1, 7, 64], [7, 64]))
def test_every_position_in_a_batch(table: str, loss: Loss, batch_size: int) -> None:
    """There are 36 cells: each is at another place of a batch, which is full or filled up."""
    check(table, loss, "prediction", batch_size=batch_size, own=True, guidance=3.0)


@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_guidance_costs_an_evaluation_per_draw(guidance: float) -> None:
    check("epsilon", "l2", "prediction", guidance=guidance)


@pytest.mark.parametrize("fits", [1, 3])
@pytest.mark.parametrize("strategy", ["full", "race", "halving"])
def test_guided_errors_are_the_same_wherever_memory_runs_out(
    strategy: str, fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a batch is cut, or redone after the null was predicted, no other null is used."""
    found = []
    for limit in (64, fits):
        engine = engine_of("v", "l2", "prediction", 16, guidance=3.0)

        def limited(answer: Any, *rest: Any, limit: int = limit) -> torch.Tensor:
            if len(answer) > limit:
                raise torch.OutOfMemoryError("simulated")
            return cell_errors(answer, *rest)

        monkeypatch.setattr(scoring, "cell_errors", limited)
        decided = list(engine.score(SAMPLES, make(strategy, len(ROWS))))
        found.append({one.sample.sample_id: one for one in decided})
        assert engine.evaluated == sum(one.evaluations for one in decided)
    for name, one in found[0].items():
        other = found[1][name]
        cells = sum(request.prompts.size * request.draws.size for request, _ in one.cells)
        nulls = sum(request.draws.size for request, _ in one.cells)
        assert other.evaluations == one.evaluations == cells + nulls
        for (_, errors), (_, wanted) in zip(other.cells, one.cells, strict=True):
            np.testing.assert_allclose(errors, wanted, rtol=1e-6)


@pytest.mark.parametrize("how", [{"own": True}, {"sample": True}, {"own": True, "sample": True}])
def test_noise_and_latents_of_each_image_s_own(how: dict[str, bool]) -> None:
    check("v", "l2", "epsilon", **how)
