"""Runs in trackio, on this machine and without a network."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from helpers.command import bench

from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench_plugins.trackers import _trackio

RUN = ("run", "digits", "--backbone", "majority", "--limit", "20")


def test_nothing_listens_unless_it_is_asked_for() -> None:
    code = "import bench_plugins.trackers as t; print(hasattr(t, 'run_started'))"
    for project, said in (("", "False"), ("tests", "True")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "BENCH_TRACKIO": project},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == said


def test_a_run_is_logged_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    from trackio import sqlite_storage, utils

    for module in (sqlite_storage, utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    manager = load_plugins().manager
    manager.register(_trackio, name="the tracker")
    try:
        done = bench(*RUN, "--results", tmp_path / "r", "--json", BENCH_TRACKIO="my tests")
    finally:
        manager.unregister(_trackio)
    assert done.code == 0 and "Warning" not in done.err, done.err
    (file,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute(
            "select run_name, step, metrics from metrics order by id"
        ).fetchall()
    logged = [(name, step, json.loads(metrics)) for name, step, metrics in rows]
    assert {name for name, _, _ in logged} == {done.json["run_id"]}
    assert [step for _, step, _ in logged] == [*range(1, 21), 20]
    accuracy = done.json["metrics"]["accuracy"]
    assert logged[19][2]["accuracy"] == pytest.approx(accuracy)
    assert logged[20][2]["final/accuracy"] == pytest.approx(accuracy)


def test_an_interrupted_run_gets_no_images_of_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one cannot be logged: trackio is not there any more."""

    class Tracked:
        logged: ClassVar[list[object]] = []

        def log(self, *values: object, **_: object) -> None:
            self.logged.append(values)

    monkeypatch.setattr(_trackio._run, "tracked", Tracked())  # of a run that did not finish
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match="trackio is not installed"):
        _trackio.run_started({}, 0, 1, 0)
    _trackio.sample_scored({"prediction": 1, "label": 1, "evaluations": 9})
    _trackio.run_finished({"metrics": {"accuracy": 1.0}, "cost": {}})
    assert not Tracked.logged


def piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def as_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "rubbish": lambda file: file.write_bytes(b"rubbish" * 1000),
    "a pipe": piped,
    "a folder": as_folder,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_project_costs_no_run(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    from trackio import sqlite_storage, utils

    for module in (sqlite_storage, utils):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    manager = load_plugins().manager
    manager.register(_trackio, name="the tracker")
    run = (*RUN, "--results", tmp_path / "r", "--fresh", "--json")
    try:
        whole = bench(*run, BENCH_TRACKIO="tests")
        (file,) = (tmp_path / "trackio").glob("*.db")
        DAMAGE[damage](file)
        done = bench(*run, BENCH_TRACKIO="tests")
    finally:
        manager.unregister(_trackio)
    assert done.code == 0 and "Unexpected" not in done.err, done.err
    assert done.json["metrics"] == whole.json["metrics"]


def test_the_extra_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    manager = load_plugins().manager
    manager.register(_trackio, name="the tracker")
    try:
        done = bench(*RUN, "--results", tmp_path / "r", BENCH_TRACKIO="tests")
    finally:
        manager.unregister(_trackio)
    assert done.code == 0 and "bench[trackio]" in done.err  # the run is made all the same
