"""What a precision adds to float32: figures worked by hand, false alarms, and broken networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command import bench as command
from helpers.matrix import matrix
from helpers.refusals import refused

from bench.discovery.targets import load_target
from bench.engine.denoiser import CheckedDenoiser
from bench.engine.denoising import DenoisingEngine
from bench.engine.rounding import Rounding, affordable, compare, paired_draws
from bench.errors import BenchWarning
from bench.running import checks
from bench.running.content import Content, PreparedRun
from bench.running.kinds import DenoiserKind
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.folder import read_manifest

DRAWS = 500  # of the full sweep


@pytest.mark.parametrize(
    ("evaluations", "prompts", "expected"),
    [
        (2 * 16 * 80, 21, (8, 10)),  # two passes of 16 draws
        (2 * 16 * 79, 21, (7, 10)),  # images are reduced first
        (2 * 16 * 20, 21, (2, 10)),
        (2 * 16 * 19, 21, (2, 9)),  # then prompts
        (2 * 16 * 4, 21, (2, 2)),
        (2 * 16 * 4 - 1, 21, (0, 0)),
        (1e9, 1, (0, 0)),  # nothing to confuse
    ],
)
def test_what_a_share_of_a_run_pays_for(
    evaluations: float, prompts: int, expected: tuple[int, int]
) -> None:
    assert affordable(evaluations, prompts, 16) == expected


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("draws", [4, 5, 8, 16, 17, 40, 250, 500])
def test_pairs_are_of_neighbouring_levels_over_all_of_them(draws: int, antithetic: bool) -> None:
    draws += draws % 2 if antithetic else 0
    pairs = paired_draws(draws, antithetic).reshape(-1, 2)
    assert (pairs[:, 1] - pairs[:, 0] == 1 + antithetic).all()
    assert len({*pairs.ravel().tolist()}) == pairs.size <= 16 and pairs.max() < draws
    if draws >= 32:
        assert len(pairs) == 8 and np.ptp(pairs[:, 0]) > 0.8 * draws


def test_the_figures_by_hand() -> None:
    """Two images, three prompts, four draws; prompt 0 is the best, and draws differ by ±1."""
    draw = np.array([1.0, -1.0, 1.0, -1.0])
    exact = np.stack([np.zeros(4), 5 + draw, 9 + draw])[None].repeat(2, axis=0)
    added = np.stack([np.zeros(4), 0.3 * draw, np.full(4, 0.2)])[None].repeat(2, axis=0)
    found = compare(exact + added, exact)
    sd = np.sqrt(2)  # of draws a, b with a − b = 2: |a − b| / √2
    own = np.sqrt(4 * 0.09 / 8 * 4 / 3)  # of prompt 1 alone, over both prompts
    assert found.noise == pytest.approx(own / sd)
    assert found.bias == pytest.approx(0.2 / sd) == found.least_bias  # equal on both images
    assert (found.decisions, found.images, found.prompts, found.draws) == (0, 2, 3, 4)
    assert found.shown(49) == "shown below it" and found.shown(51) == "shown above it"
    other = compare(exact + added - [[[0.0], [9.0], [0.0]]], exact)
    assert other.decisions == 2 and "shifts the error" in str(other.problem("float16", DRAWS))


def simulated(rng: np.random.Generator, noise: float, bias: float = 0.0) -> Rounding:
    """Return a check of differences with a trend over levels and a sd of 1 within a level."""
    trend = np.repeat(np.linspace(-5, 5, 8), 2)
    prompts = rng.normal(0, 1, (8, 10, 1)) + np.arange(10)[:, None] / 5
    exact = (
        prompts + trend * rng.normal(0, 1, (8, 10, 1)) + rng.normal(0, np.sqrt(0.5), (8, 10, 16))
    )
    shift = np.where(np.arange(10) == 7, bias, 0.0)[:, None]
    return compare(exact + shift + rng.normal(0, noise * np.sqrt(0.5), exact.shape), exact)


def test_two_hundred_checks_of_harmless_rounding_say_nothing() -> None:
    rng = np.random.default_rng(0)
    for noise in (0.01, 0.1, 0.2):
        found = [simulated(rng, noise) for _ in range(200)]
        assert not any(one.problem("bfloat16", DRAWS) for one in found)
        assert np.mean([one.noise for one in found]) == pytest.approx(noise, rel=0.1)
    assert all(one.shown(DRAWS) == "shown below it" for one in [simulated(rng, 0.01)])


def test_noise_and_bias_that_matter_are_found() -> None:
    rng = np.random.default_rng(1)
    loud = [simulated(rng, 0.45).problem("float16", DRAWS) for _ in range(20)]
    assert all("standard deviations of a draw" in str(text) for text in loud)
    above = [simulated(rng, 0.02, 4 / np.sqrt(DRAWS)).problem("float16", DRAWS) for _ in range(20)]
    assert all("shifts the error of a prompt" in str(text) for text in above)


RUN = {"dataset": "digits", "strategy": "full", "params": {"draws": 40}, "batch_size": 64}


def a_run(dtype: str = "bfloat16", **more: Any) -> PreparedRun:
    return prepare(make_config({**RUN, "dtype": dtype, **more}))


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let a check have 2 images and 2 prompts, and remember nothing of other tests."""
    monkeypatch.setattr(checks, "_budget", lambda run, engine: 2 * 16 * 4.0)
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))


def opened(run: PreparedRun) -> DenoisingEngine:
    engine = run.open_engine()
    assert isinstance(engine, DenoisingEngine)
    return engine


def test_a_sound_network_is_compared_once_and_the_run_keeps_the_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import bench

    words: dict[str, Any] = {"dtype": "bfloat16", "results": str(tmp_path / "r"), "limit": 2}
    words |= {"strategy": "full", "batch_size": 64}
    result = bench.run("digits", params={"draws": 8}, **words)
    kept = read_manifest(Path(result.results_dir)).rounding
    assert kept is not None and kept.noise < 0.1 and kept.decisions == 0
    assert (kept.images, kept.prompts, kept.draws) == (2, 4, 8) and not kept.arithmetic_alone
    manifest = read_manifest(Path(result.results_dir))
    assert kept.bias in ("shown below it", "not shown") and manifest.warnings is None
    assert "against float32: noise 0.0" in " ".join(command("show", result.results_dir).out.split())
    monkeypatch.setattr("bench.engine.rounding.compare", None)  # not again
    other = opened(a_run(params={"draws": 10}))
    assert other.model.rounding is not None and other.model.rounding["noise"] == kept.noise


def in_half_alone(
    monkeypatch: pytest.MonkeyPatch, breaks: Callable[[torch.nn.Module], None]
) -> None:
    """Break the network of runs in half precision, as they load it."""
    load = DenoiserKind.load

    def broken(self: DenoiserKind, question: Content, *others: Any) -> CheckedDenoiser:
        backbone = load(self, question, *others)
        if question.names.precision.dtype != "float32" and backbone.network is not None:
            breaks(backbone.network)
        return backbone

    monkeypatch.setattr(DenoiserKind, "load", broken)


def answers(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.nn.Module], None]:
    def hook(module: torch.nn.Module, arguments: Any, answer: Any) -> Any:
        return (change(answer[0]), *answer[1:])

    def breaks(network: torch.nn.Module) -> None:
        network.register_forward_hook(hook)

    return breaks


def coarse(answer: torch.Tensor) -> torch.Tensor:
    """Keep whole numbers."""
    return answer.round()


def forgets_the_prompt(network: torch.nn.Module) -> None:
    """Attend to the first tokens of a prompt alone."""
    for name, module in network.named_modules():
        if name.endswith("attn2.to_v"):
            module.register_forward_hook(lambda m, given, values: values * 0.5)


BREAKS = {
    "coarse answers": (answers(coarse), "standard deviations of a draw"),
    "a part that is scaled": (
        forgets_the_prompt,
        "shifts the error|standard deviations of a draw",
    ),
}


@pytest.mark.parametrize("part", matrix(BREAKS, ["coarse answers"]))
def test_a_network_that_half_precision_breaks_is_named(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks, words = BREAKS[part]
    in_half_alone(monkeypatch, breaks)
    with pytest.warns(BenchWarning, match=words):
        engine = opened(a_run())
    assert any("--dtype float32" in text for text in engine.model.warnings)


def overflows(network: torch.nn.Module) -> None:
    """Scale the first layer beyond the range of float16."""
    with torch.no_grad():
        network.conv_in.weight *= 1e5  # type: ignore[operator, union-attr]


def test_errors_that_are_not_finite_stop_the_run_and_name_the_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_half_alone(monkeypatch, overflows)
    with refused("--dtype float32"):
        opened(a_run("float16"))


def test_an_error_that_is_not_finite_during_a_run_names_the_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = a_run("float16", limit=2, params={"draws": 2})
    with pytest.warns(BenchWarning, match="too few for two images|memory") as noted:
        monkeypatch.setattr(checks, "_budget", lambda run, engine: 1.0)
        engine = opened(run)
    assert "float16 was not compared with float32" in str(noted[0].message)
    overflows(engine.backbone.network)  # type: ignore[arg-type]
    failed = list(engine.score(run.samples(run.sample_ids), run.strategy))
    assert all("--dtype float32" in str(one.error) for one in failed) and len(failed) == 2


@pytest.mark.long
@pytest.mark.parametrize("dtype", matrix(["bfloat16", "float16"], ["bfloat16"]))
def test_without_memory_for_another_network_operations_are_converted(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are about the same: most of the addition is arithmetic, not rounded weights."""
    whole = opened(a_run(dtype)).model.rounding
    load = DenoiserKind.load

    def without_room(self: DenoiserKind, question: Content, *others: Any) -> CheckedDenoiser:
        if question.names.precision.network == "float32":
            raise torch.OutOfMemoryError("simulated")
        return load(self, question, *others)

    monkeypatch.setattr(DenoiserKind, "load", without_room)
    monkeypatch.setattr(checks, "ROUNDING_VERSION", 0)  # another key
    alone = opened(a_run(dtype)).model.rounding
    assert whole is not None and alone is not None
    assert alone["arithmetic_alone"] and not whole["arithmetic_alone"]
    assert 0 < alone["noise"] < 3 * whole["noise"] and alone["decisions"] == 0


@pytest.mark.long
def test_a_pipeline_in_memory_is_compared_by_its_operations(tmp_path: Path) -> None:
    from helpers.damage import TINY

    import bench
    from bench.inputs.weights import resolve
    from bench_plugins.backbones._pipelines.files import load_pipeline
    from bench_plugins.backbones.pipeline_folder import FolderPipeline

    pipe = load_pipeline(FolderPipeline.empty(resolve(str(TINY)), "bfloat16"))
    words: dict[str, Any] = {"strategy": "full", "results": str(tmp_path / "r"), "batch_size": 64}
    result = bench.run("digits", pipe, params={"draws": 4}, limit=2, **words)
    kept = read_manifest(Path(result.results_dir)).rounding
    assert kept is not None and kept.arithmetic_alone and kept.noise < 0.1
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.bfloat16}


def test_float32_is_not_compared() -> None:
    assert opened(a_run("float32")).model.rounding is None


def test_another_network_takes_a_quarter_of_the_memory_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = prepare(make_config({"dataset": "digits", "backbone": "tiny-digits"}))
    size = load_target(run.names.backbone).memory(run.content.weights, "float32")
    for total, fits in ((5 * size, True), (3 * size, False), (None, True)):
        monkeypatch.setattr(checks, "device_memory", lambda device, total=total: total)
        assert checks._has_room(run, "cpu") == fits
