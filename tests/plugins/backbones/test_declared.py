"""What models.toml declares: sizes and operations are counted again from the published configs."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from helpers.command import bench
from helpers.matrix import matrix
from helpers.refusals import refused

from bench.cli import main
from bench.contracts.specs import BackboneSpec
from bench.discovery.loading import load_plugins
from bench.discovery.targets import load_target
from bench.inputs.weights import resolve
from benchmarks.published import NETWORKS, empty_encoder, save_published

SPECS: dict[str, BackboneSpec] = {spec.name: spec for spec in load_plugins().backbones}
FAMILIES = {spec.family for spec in SPECS.values() if spec.takes_folders}


# Of networks of one kind the smallest; the others are slow to count.
# `test_promises.py` always counts a small UNet, which has a spec, and a small transformer.
COUNTED = ("sd15", "sdxl", "sana-600m", "pixart", "dit-256")
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS if name not in COUNTED]


@pytest.mark.parametrize("name", [*matrix(COUNTED, []), *OTHERS])
def test_operations_and_sizes(name: str, tmp_path: Path) -> None:
    spec: Any = SPECS[name]
    weights = resolve(str(save_published(name, tmp_path, tensors=False)))
    inspected = load_target(spec).inspected(weights, "float32")
    assert inspected.resolution == spec.resolution
    assert spec.flops == pytest.approx(load_target(spec).evaluation_flops(weights), rel=1e-3)
    size = sum(parameter.numel() for parameter in inspected.network.parameters())
    assert spec.size == pytest.approx(size, rel=5e-3)
    if name == "sd15":  # a gradient costs as much again, and a little
        assert 2 < load_target(spec).linearisation_cost(weights) < 2.2


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("bigG", ["sdxl"]),
        ("t5-xxl", ["sd3", "sd35-medium", "sd35-large", "flux-dev", "flux-schnell", "pixart"]),
        ("gemma-2-2b", ["sana", "sana-600m"]),
    ],
)
def test_sizes_of_text_encoders(kind: str, names: list[str]) -> None:
    size = sum(parameter.numel() for parameter in empty_encoder(kind).parameters())
    for name in names:
        assert SPECS[name].encoder_size == pytest.approx(size, rel=5e-3)


def test_a_library_that_is_too_old_is_named() -> None:
    assert load_target(SPECS["sana"]).__name__ == "Sana"
    with refused("99.1"):
        load_target(replace(SPECS["sana"], requires="diffusers>=99.1"))


DENOISERS = [n for n, spec in SPECS.items() if spec.family and spec.scorer == "denoiser"]


@pytest.mark.parametrize("name", DENOISERS)
def test_every_model_of_a_family_says_what_a_user_must_know(name: str) -> None:
    spec = SPECS[name]
    assert spec.family in FAMILIES and spec.summary
    if not (spec.takes_folders or spec.objects):
        assert spec.licence and spec.weights
        assert spec.trained_on != "undeclared"
        assert spec.exposure or spec.weights.startswith("bench_plugins:")
    assert {"normalize", "resolution"} <= spec.parameters.keys()


def test_libraries_say_nothing_while_the_command_imports_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    level = transformers.utils.logging._get_default_logging_level
    monkeypatch.setattr(main, "_run", level)  # where the command itself would run
    assert bench("--version").code == logging.ERROR
    assert level() == logging.WARNING  # of Python, whose environment stays as it was
