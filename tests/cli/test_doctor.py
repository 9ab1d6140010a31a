"""`bench doctor` says what is there, what does not work, and how fast a backbone is."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.command import bench
from helpers.engines import limit_memory, prepared
from helpers.plugins import load_hooks
from helpers.refusals import refused

from bench.cli import doctor
from bench.cli.doctor import diagnose, matmul_peak, measure_speed, self_test
from bench.discovery.loading import Plugins, load_plugins
from bench.engine.batching import rates_by_size
from bench.machine.cache import read_cached
from bench.running.parts.settings import make_config


def test_a_working_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    done = bench("doctor", "--json")
    found = done.json
    assert done.code == 0 and found["self_test"]["status"] == "passed"
    assert found["packages"]["torch"] and found["packages"]["click"]
    assert any(device.startswith("cpu") for device in found["devices"])
    assert {plugin["name"] for plugin in found["plugins"]} >= {"datasets", "backbones"}
    assert str(Path.home()) not in done.out and "secret" not in done.out


def test_what_is_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Plugins()

    def register_datasets(register: object) -> None:
        raise RuntimeError("no such luck")

    load_hooks(broken, "unlucky", register_datasets)
    found = diagnose(broken, testing=False)
    assert not found.well
    assert "no such luck" in str(found.plugins[0].error)
    assert self_test(broken).status == "left out"  # no backbone came with it

    class Gone:
        def __call__(self, config: object) -> None:
            raise OSError("the disk is gone")

    monkeypatch.setattr("bench.running.lifecycle.run", Gone())
    assert self_test(load_plugins()).said == "OSError: the disk is gone"


@pytest.mark.parametrize(
    ("installed", "newer"),
    [("2.13.0+cpu", False), ("2.13.9", False), ("2.14.0", True), ("3.0", True)],
)
def test_a_library_newer_than_tested_is_named(
    installed: str, newer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_packages", lambda: {"torch": installed, "numpy": "99"})
    monkeypatch.setattr(doctor, "NEWEST_SEEN", {"torch": "2.13"})
    assert diagnose(Plugins(), testing=False).newer == ({"torch": "2.13"} if newer else {})


@pytest.mark.parametrize(("cubic", "largest"), [(0.01, 2048), (1.0, 512)])
def test_the_peak_is_a_matrix_products(
    cubic: float, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A product of 512×512 takes `cubic` seconds on a made-up clock, larger ones in proportion."""
    sides: list[int] = []

    def repeat(statement: str, number: int, globals: dict[str, torch.Tensor]) -> list[float]:
        exec(statement, globals)
        sides.append(len(globals["a"]))
        return [9.0, cubic * (sides[-1] / 512) ** 3]

    monkeypatch.setattr("bench.cli.doctor.repeat", repeat)
    peak = matmul_peak(torch.device("cpu"), torch.float32)
    assert peak == pytest.approx(2 * 512**3 / cubic) and max(sides) == largest


@pytest.mark.long
def test_speed_is_measured_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly = partial(measure_speed, seconds=0.2)
    monkeypatch.setattr("bench.cli.doctor.measure_speed", quickly)
    cache = {"BENCH_CACHE_DIR": str(tmp_path)}
    done = bench("doctor", "--quick", "--speed", "--backbone", "tiny-digits", "--json", **cache)
    assert done.code == 0, done.err
    speed = done.json["speed"]
    rates = {int(size): rate for size, rate in speed["rates"].items()}
    assert min(rates) == 1 and speed["best_batch_size"] in rates
    assert speed["flops_per_evaluation"] == pytest.approx(67.9e6, rel=0.02)
    assert speed["peak_flops"] > 0
    plan = bench("run", "digits", "--dry-run", "--json", **cache).json
    seconds = plan["evaluations"] / rates[speed["best_batch_size"]]
    assert plan["seconds"] == round(seconds, 1)
    sizes = json.loads(read_cached(tmp_path / "batch_sizes.bin") or b"")
    assert list(sizes.values()) == [speed["best_batch_size"]]


def test_batch_sizes_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = prepared()[0]
    sizes = limit_memory(monkeypatch, engine, cells=20)
    assert list(rates_by_size(engine, 60.0)) == [1, 8, 16]
    assert set(sizes) == {1, 8, 16, 32}


def test_a_backbone_without_batches_has_no_speed() -> None:
    with refused("'random'"):
        measure_speed(make_config({"dataset": "-", "backbone": "random"}))
