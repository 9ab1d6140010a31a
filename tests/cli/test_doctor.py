"""`bench doctor` says what is there, and what does not work."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench
from helpers.plugins import load_hooks

from bench.cli import doctor
from bench.cli.doctor import diagnose, self_test
from bench.discovery.loading import Plugins, load_plugins


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
