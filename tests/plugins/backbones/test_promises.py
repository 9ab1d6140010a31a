"""What stored runs depend on: costs, fingerprints and run ids of models do not move.

Operations are counted, not timed: on the meta device as where tensors are real.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.families import KINDS, save
from helpers.matrix import matrix
from helpers.places import ROOT
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.discovery.loading import load_plugins
from bench.discovery.targets import load_target
from bench.inputs.weights import resolve
from bench.running.parts.model import family_of
from bench.running.parts.settings import RunConfig
from bench.running.prepare import prepare
from bench_plugins.backbones.families import StableDiffusion

SHIPPED = ROOT / "plugins/bench_plugins/backbones/weights"
REGISTRY = load_plugins().backbones
INCLUDED = ("tiny-digits", "tiny-landuse")
SIDES = {"sana": 32, "dit": None}  # of the images; 16 of the other small ones
# Operations of an evaluation, evaluations per linearised draw, and bytes of the weights and beside
# them in float32. The small pipelines are those of `helpers.families`.
COSTS = {
    "tiny-digits": (67_872_512, 1.984, 8_273_836),
    "tiny-landuse": (356_682_112, 1.988, 36_344_588),
    "sdxl": (17_306_624, 2.066, 1_462_444),
    "sd3": (18_943_360, 2.821, 178_848),
    "flux": (42_740_224, 2.834, 159_644),
    "schnell": (13_109_248, 2.721, 142_108),
    "pixart": (1_787_136, 2.078, 205_820),
    "sigma": (3_502_464, 2.162, 188_796),
    "sana": (71_221_248, 1.975, 681_524),
}


@pytest.mark.parametrize("kind", matrix(COSTS, ["sd3", "tiny-digits"]))
def test_costs(kind: str, tmp_path: Path) -> None:
    if kind in INCLUDED:
        spec: Any = REGISTRY.get(kind)
        weights, side = resolve(spec.weights), None
    else:
        save(kind, tmp_path / kind)
        weights, side = resolve(str(tmp_path / kind)), SIDES.get(kind, 16)
        spec = REGISTRY.get(family_of(str(tmp_path / kind), None) or "")
    target: Any = load_target(spec)
    costs = (
        target.evaluation_flops(weights, side),
        target.linearisation_cost(weights, side),
        target.memory(weights, "float32", resolution=side),
    )
    assert costs == pytest.approx(COSTS[kind], rel=1e-3)
    assert kind not in INCLUDED or spec.flops == pytest.approx(costs[0], rel=1e-2)


def test_every_small_family_is_among_them() -> None:
    assert {*KINDS} - {"dit"} == {*COSTS} - {*INCLUDED}  # DiT's prompts have no gradient


@pytest.mark.parametrize("name", INCLUDED)
def test_published_runs_are_of_the_weights_that_are_here(name: str) -> None:
    fingerprint = resolve(str(REGISTRY.get(name).weights)).fingerprint
    published = (ROOT / "results" / "published").glob(f"*-{name}-*/manifest.json")
    identities = [json.loads(file.read_text("utf-8"))["identity"] for file in published]
    assert identities and {i["backbone"]["weights"] for i in identities} == {fingerprint}


@pytest.mark.parametrize(
    ("settings", "run_id"),
    [
        ({}, "digits-tiny-digits-race-6a72ea9d"),
        ({"strategy": "full", "params": {"draws": 250}}, "digits-tiny-digits-full-a68c4095"),
    ],
)
def test_run_ids(settings: dict[str, Any], run_id: str) -> None:
    assert prepare(RunConfig(dataset="digits", **settings)).manifest.run_id == run_id


@pytest.mark.parametrize(("name", "largest"), [("tiny_digits", 6e6), ("tiny_landuse", 21e6)])
def test_included_weights_are_small_and_without_code(name: str, largest: float) -> None:
    files = [path for path in (SHIPPED / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < largest
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl", ".py")]
    assert "not zero-shot" in (SHIPPED / name / "README.md").read_text("utf-8")


@pytest.mark.parametrize("kind", matrix(["sd15", "sd21"], ["sd21"]))
def test_counts_are_those_of_real_tensors(kind: str, pipelines: dict[str, Path]) -> None:
    weights = resolve(str(pipelines[kind]))
    backbone = StableDiffusion(weights)
    x_t, t = torch.zeros(1, *backbone.latent_shape), torch.zeros(1)
    conditioning: Any = backbone.encode_prompts(["a"])
    conditioning["0.0"].requires_grad_()
    backbone.denoise(x_t, t, conditioning)  # the first call tries a mixed batch, too
    counts = []
    for gradient in (False, True):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            prediction = backbone.denoise(x_t, t, conditioning)
            if gradient:
                torch.autograd.backward(prediction.sum())
        counts.append(counter.get_total_flops())
    assert StableDiffusion.evaluation_flops(weights) == counts[0]
    assert StableDiffusion.linearisation_cost(weights) == round(counts[1] / counts[0], 3)
