"""Level tables against diffusers' own schedulers, and what is no table."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from helpers.flows import edm_sigmas
from helpers.refusals import refused

from bench.contracts.levels import (
    Levels,
    diffusion_levels,
    edm_levels,
    flow_levels,
)
from bench.contracts.strategy import Floats

RNG = np.random.default_rng(0)
X_0, EPS = RNG.standard_normal((2, 50))


def shown(levels: Levels, row: int) -> Floats:
    return np.asarray(levels.alpha[row] * X_0 + levels.sigma[row] * EPS)


def answered(levels: Levels, row: int) -> Floats:
    return np.asarray(levels.p[row] * X_0 + levels.q[row] * EPS)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_diffusion_levels_are_the_schedulers(kind: str) -> None:
    scheduler = DDPMScheduler(beta_schedule="scaled_linear", prediction_type=kind)
    levels = diffusion_levels(scheduler.alphas_cumprod.numpy(), kind)
    assert levels.time.dtype == np.int64 and levels.time.tolist() == list(range(1000))
    assert levels.progress is not None and levels.progress[500] == 0.5
    for row in (0, 1, 500, 999):
        t, x_0, eps = torch.tensor([row]), torch.tensor(X_0)[None], torch.tensor(EPS)[None]
        noised = scheduler.add_noise(x_0.float(), eps.float(), t)
        np.testing.assert_allclose(shown(levels, row), noised[0].numpy(), atol=2e-6)
        # One step of the scheduler from a perfect answer finds the clean image again.
        perfect = torch.tensor(answered(levels, row))[None].float()
        found = scheduler.step(perfect, row, noised, generator=torch.manual_seed(0))
        if row or kind != "epsilon":
            np.testing.assert_allclose(
                found.pred_original_sample[0].numpy(), np.clip(X_0, -1, 1), atol=2e-4
            )


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_levels_are_the_initial_table(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    levels = flow_levels(dict(scheduler.config))
    np.testing.assert_allclose(levels.sigma, scheduler.sigmas.numpy()[::-1], rtol=1e-5)
    np.testing.assert_allclose(levels.time, scheduler.timesteps.numpy()[::-1], rtol=1e-5)
    assert levels.progress is not None and np.array_equal(levels.progress, levels.sigma)
    reverse = flow_levels(dict(scheduler.config), scale=1.0, reverse=True)
    np.testing.assert_allclose(reverse.time, 1 - levels.sigma)
    # One Euler step to sigma = 0 along a perfect answer finds the clean image.
    np.testing.assert_allclose(shown(levels, 700) - levels.sigma[700] * answered(levels, 700), X_0)
    # `set_timesteps` shifts once more: the trap that the initial table avoids.
    scheduler.set_timesteps(1000)
    if shift != 1:
        again = scheduler.sigmas.numpy()[:-1][::-1]
        assert np.abs(again - levels.sigma).max() > 1e-3


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_a_dynamic_shift_is_applied_once(kind: str) -> None:
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind)
    config = dict(scheduler.config)
    mu = calculate_shift(1024)
    plain = torch.arange(1, 1001, dtype=torch.float64) / 1000
    wanted = scheduler.time_shift(mu, 1.0, plain).numpy()
    levels = flow_levels(config, mu, scale=1.0)
    np.testing.assert_allclose(levels.sigma, wanted, rtol=1e-6)
    with refused("mu", kind=ValueError):
        flow_levels(config)
    with refused("mu", kind=ValueError):
        flow_levels(dict(FlowMatchEulerDiscreteScheduler().config), mu)
    with refused("levels", kind=ValueError):
        flow_levels({**config, "use_karras_sigmas": True}, mu)


def test_edm_levels_are_its_preconditioning() -> None:
    scheduler = EDMEulerScheduler(sigma_data=0.5)
    sigmas = edm_sigmas(40)
    levels = edm_levels(sigmas, 0.5)
    for row in (0, 20, 39):
        s = torch.tensor(sigmas[row])
        noised = torch.tensor(X_0 + sigmas[row] * EPS)
        inputs = scheduler.precondition_inputs(noised, s)
        np.testing.assert_allclose(shown(levels, row), inputs.numpy())
        assert levels.time[row] == pytest.approx(float(scheduler.precondition_noise(s)))
        perfect = torch.tensor(answered(levels, row))
        np.testing.assert_allclose(scheduler.precondition_outputs(noised, perfect, s), X_0)


def table(**changes: Any) -> Levels:
    sigma = np.linspace(0.1, 0.9, 5)
    columns = {
        "alpha": 1 - sigma,
        "sigma": sigma,
        "time": np.arange(5),
        "p": -np.ones(5),
        "q": np.ones(5),
    }
    return Levels(**{**columns, **changes})


def test_both_directions_and_any_time_are_taken() -> None:
    assert table(alpha=np.linspace(0.1, 0.9, 5), sigma=np.linspace(0.9, 0.1, 5))
    assert table(time=np.linspace(3, -9, 5)).time.dtype == np.float64
    assert table(alpha=np.array([1, 1, 0.5, 0.1, 0]), sigma=np.array([0, 0.1, 0.5, 0.9, 1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": np.array([0.1, 0.3, 0.2, 0.7, 0.9])}, "levels 1 and 2"),
        ({"time": np.arange(4)}, "(4,)"),
        ({"q": np.array([1, 1, np.nan, 1, 1])}, "nan at level 2"),
        ({"alpha": -np.ones(5)}, "alpha"),
        ({"p": 1 - np.linspace(0.1, 0.9, 5), "q": np.linspace(0.1, 0.9, 5)}, "x_t"),
        (dict.fromkeys(("alpha", "sigma", "time", "p", "q"), np.zeros(0)), "shape"),
    ],
)
def test_what_is_no_table(changes: dict[str, Any], message: str) -> None:
    with refused(message, kind=ValueError):
        table(**changes)
