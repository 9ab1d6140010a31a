"""Progress has one format: on a terminal and in a log, of a run and of every other command."""

import io
import re
import time
from typing import Any

import pluggy
import pytest

from bench.cli import progress as progress_room
from bench.cli.progress import Display, Progress, stage_text
from bench.machine import stages
from bench.reports.terminal.tables import PlainConsole


def shown(monkeypatch: pytest.MonkeyPatch) -> tuple[Progress, list[str]]:
    said: list[str] = []
    display = Progress(pluggy.PluginManager("bench"))
    monkeypatch.setattr(display.console, "print", lambda text, **_: said.append(text))
    monkeypatch.setattr(progress_room, "displays", [display])
    monkeypatch.setattr(progress_room, "PLAIN_INTERVAL", 0.0)
    return display, said


def record(label: int, prediction: int) -> dict[str, Any]:
    return {"sample_id": "x", "label": label, "prediction": prediction, "error": None}


def test_lines_of_a_run_in_python_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts and notebooks make several runs, whose lines stand below each other."""
    display, said = shown(monkeypatch)
    display.names_runs = True
    display.run_started({"run_id": "second"}, done=1, total=2, correct=1)
    display.sample_scored(record(0, 0) | {"error": "cannot be read"})
    with stages.stage("Auditing", 4):
        said.append(display.text(time.perf_counter() + 1) or "")
    assert len(said) == 4 and all(line.startswith("second: ") for line in said)


def test_every_stage_has_one_format() -> None:
    def text(
        stage: str, seconds: float, done: int = 0, total: int = 0, new: int | None = None
    ) -> str:
        return stage_text(stages.Stage(stage, total, done=done, started=0.0), seconds, new)

    assert text("Checking", 12.0) == "Checking: 12 s so far"
    assert text("Auditing", 20.0, 0, 30) == "Auditing: 0 of 30 images, 20 s so far"
    assert text("Auditing", 20.0, 10, 30) == "Auditing: 10 of 30 images, 0.5 images/s, 40 s left"
    ended = "Auditing: 30 of 30 images, 1.5 images/s, 20 s so far"
    assert text("Auditing", 20.0, 30, 30) == ended
    resumed = text("Scoring", 20.0, 1010, 2010, new=10)
    assert resumed == "Scoring: 1,010 of 2,010 images, 0.5 images/s, 33 min left"


@pytest.mark.parametrize("width", [40, 100])
def test_a_terminal_has_one_line_that_leaves_room_for_its_echo(width: int) -> None:
    """Ctrl-C is echoed as `^C` behind the line: on a full one it would begin another."""
    out, display = io.StringIO(), Progress(pluggy.PluginManager("bench"))
    console = PlainConsole(file=out, width=width, force_terminal=True, color_system=None)
    display.__dict__["console"] = console
    display.run_started({"run_id": "r"}, done=0, total=40, correct=0)
    display.sample_scored(record(1, 1))
    text = display.text(time.perf_counter() + 1) or ""
    assert re.fullmatch(r"Scoring: 1 of 40 images, .* images/s, .* left, accuracy 100.0 %", text)
    display.show(text)
    display.show(None)
    lines = [line for line in re.split(r"[\r\n]", out.getvalue()) if "Scoring" in line]
    plain = [re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", line) for line in lines]
    assert plain and max(map(len, plain)) <= width - 3
    assert ("accuracy" in plain[0]) == (width == 100) and ("…" in plain[0]) == (width == 40)


def test_any_command_shows_a_stage_that_takes_long() -> None:
    display = Display()
    with stages.stage("Replaying", 8, "settings") as stage:
        assert display.text(stage.started + 1) is None
        assert list(stages.counted("ab", "Reading runs", 2, "runs")) == ["a", "b"]
        stage.done = 2
        with stages.stage("One of many parts") as part:  # a short one does not hide it
            part.started = stage.started + 3
            shown = [display.text(stage.started + seconds) for seconds in (4, 5)]
    assert shown[0] == "Replaying: 2 of 8 settings, 0.5 settings/s, 12 s left"
    assert shown[1] == "One of many parts: 2.0 s so far"
    assert display.text(time.perf_counter()) is None


def test_the_accuracy_is_that_of_all_decided_images(monkeypatch: pytest.MonkeyPatch) -> None:
    display, said = shown(monkeypatch)
    display.run_started({"run_id": "r"}, done=2, total=4, correct=2)
    display.sample_scored(record(1, 0))
    display.sample_scored(record(1, 1))
    assert said[0] == "Resuming: 2 of 4 images are decided."
    assert "accuracy 66.7 %" in said[1] and "accuracy 75.0 %" in said[2]
