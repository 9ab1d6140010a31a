"""Runs in trackio and in wandb, on this machine and without a network."""

import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench

from bench_plugins import trackers

RUN = ("run", "digits", "--backbone", "majority", "--limit", "20")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of trackio's projects."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="the extra trackio is not installed")
    for name in ("sqlite_storage", "utils"):
        monkeypatch.setattr(f"trackio.{name}.TRACKIO_DIR", tmp_path / "trackio")
    return tmp_path / "trackio"


def test_a_run_is_logged_offline(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    done = bench(*RUN, "--results", tmp_path / "r", "--json", "--tracker", "trackio:my tests")
    assert done.code == 0 and "Warning" not in done.err, done.err
    (file,) = project.glob("*.db")
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
    class Interrupted:
        def score(self, record: object) -> None:
            raise AssertionError("an image of another run")

    monkeypatch.setattr(trackers, "LOGS", [Interrupted()])
    trackers.run_started({"config": {}}, 0, 1, 0)
    trackers.sample_scored({"prediction": 1, "label": 1, "evaluations": 9})


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


def wandb_records(file: Path) -> Iterator[Any]:
    """Yield the records of a run's file, which is framed as LevelDB's logs are."""
    from wandb.proto import wandb_internal_pb2

    content, place, record = file.read_bytes(), 7, b""  # after the head
    while place + 7 <= len(content):
        if (rest := 32768 - place % 32768) < 7:
            place += rest
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        part, place = content[place + 7 : place + 7 + length], place + 7 + length
        record = part if kind in (1, 2) else record + part  # whole or first; else middle or last
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(record)


@pytest.mark.slow
def test_a_run_is_logged_by_wandb_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    command = [sys.executable, "-m", "bench", *RUN, "--results", str(tmp_path / "r"), "--json"]
    environment = {**os.environ, "BENCH_TRACKER": "wandb:tests", "WANDB_DIR": str(tmp_path)}
    environment["https_proxy"] = "http://127.0.0.1:9"  # where nobody answers
    environment.pop("BENCH_LOAD_PLUGINS", None)  # tests leave the plugins of others out
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    result = json.loads(done.stdout)  # wandb says nothing on stdout
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows, names, backbones = [], set(), set()
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "run":
            names.add(record.run.display_name)
            settings = {i.key: json.loads(i.value_json) for i in record.run.config.update}
            backbones.add(settings.get("backbone"))
        elif record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({"/".join(i.nested_key): json.loads(i.value_json) for i in items})
    assert (names, backbones) == ({result["run_id"]}, {"majority"})
    assert [row["images"] for row in rows] == list(range(1, 21))
    accuracy = pytest.approx(result["metrics"]["accuracy"])
    assert rows[-1]["accuracy"] == rows[-1]["final/accuracy"] == accuracy


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_project_costs_no_run(damage: str, project: Path, tmp_path: Path) -> None:
    run = (*RUN, "--results", tmp_path / "r", "--fresh", "--json", "--tracker", "trackio")
    whole = bench(*run)
    (file,) = project.glob("*.db")
    DAMAGE[damage](file)
    done = bench(*run)
    assert done.code == 0 and "Unexpected" not in done.err, done.err
    assert done.json["metrics"] == whole.json["metrics"]


@pytest.mark.parametrize(
    ("tracker", "said"),
    [("trackio", "bench[trackio]"), ("wand", "--tracker")],
)
def test_a_tracker_that_cannot_log_is_refused_before_scoring(
    tracker: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    done = bench(*RUN, "--results", tmp_path / "r", "--tracker", tracker)
    assert done.refuses(said) and not (tmp_path / "r").exists()
    study = tmp_path / "s.toml"
    study.write_text('datasets = ["digits"]\nbackbones = ["majority"]')
    assert bench("study", study, "--results", tmp_path / "r", "--tracker", tracker).code == 2
