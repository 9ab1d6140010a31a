"""Names of registered things, and paths in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.refusals import refused

from bench.discovery.loading import load_plugins
from bench.running.parts.data import is_path, registered


def test_a_slash_makes_a_path() -> None:
    assert all(map(is_path, ("./x", "a/b", "a\\b", ".", "..")))
    assert not any(map(is_path, ("x", "hf:owner", "...")))


def test_a_file_of_that_name_is_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with refused("./photos"):
        registered(load_plugins().datasets, "photos")
    with refused("'digits'"):
        registered(load_plugins().datasets, "digit")


def test_one_spec_of_a_kind_is_the_default() -> None:
    assert load_plugins().strategies.require_default().name == "race"
