"""What a person sees while a run is under way, where there is no terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pluggy
import pytest
from rich.console import Console

from bench.cli import progress
from bench.cli.progress import Progress, stage_text
from bench.inputs.survey import reading
from bench.reports.terminal.tables import PlainConsole


class Waits:
    """An event that lets so many waits pass."""

    def __init__(self, times: int) -> None:
        self.times = times

    def wait(self, seconds: float) -> bool:
        self.times -= 1
        return self.times < 0


def shown(monkeypatch: pytest.MonkeyPatch) -> tuple[Progress, list[str]]:
    said: list[str] = []
    display = Progress(pluggy.PluginManager("bench"))
    monkeypatch.setattr(display.console, "print", lambda text, **_: said.append(text))
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    return display, said


def record(label: int, prediction: int) -> dict[str, Any]:
    return {"sample_id": "x", "label": label, "prediction": prediction, "error": None}


def test_it_says_so_while_nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    display, said = shown(monkeypatch)
    monkeypatch.setattr(display, "left", Waits(1))
    display._watch()
    display.run_started({"run_id": "r"}, done=0, total=2, correct=0)
    monkeypatch.setattr(display, "left", Waits(1))
    display._watch()
    assert len(said) == 2 and re.fullmatch(r"Checking: \d\.\d s so far", said[0])
    assert re.fullmatch(r"Scoring: 0 of 2 images, \d\.\d s so far", said[1])


def test_every_stage_has_one_format() -> None:
    assert stage_text("Checking", 12.0) == "Checking: 12 s so far"
    assert stage_text("Auditing", 20.0, 0, 30) == "Auditing: 0 of 30 images, 20 s so far"
    assert (
        stage_text("Auditing", 20.0, 10, 30) == "Auditing: 10 of 30 images, 0.5 images/s, 40 s left"
    )
    resumed = stage_text("Scoring", 20.0, 1010, 2010, new=10)
    assert resumed == "Scoring: 1,010 of 2,010 images, 0.5 images/s, 33 min left"


def test_a_counted_stage_is_shown_after_the_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    display, said = shown(monkeypatch)
    display.run_started({"run_id": "r"}, done=0, total=1, correct=0)
    display.sample_scored(record(1, 1))
    monkeypatch.setattr(display, "left", Waits(1))
    with reading.counting("Auditing", 30):
        display._watch()
    assert re.fullmatch(r"Auditing: 0 of 30 images, \d\.\d s so far", said[-1])
    assert (reading.stage, reading.total) == ("Checking", 0)


def test_a_terminal_has_a_bar_for_each_counted_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    display = Progress(pluggy.PluginManager("bench"))
    display.console = PlainConsole(file=io.StringIO(), width=100, force_terminal=True)
    display.run_started({"run_id": "r"}, done=0, total=1, correct=0)
    display.sample_scored(record(1, 1))
    with reading.counting("Auditing", 30):
        reading.done = 7
        monkeypatch.setattr(display, "left", Waits(1))
        display._watch()
    assert display.bar is not None
    display.bar.stop()
    tasks = [(task.description, task.completed, task.total) for task in display.bar.tasks]
    assert tasks == [("Scoring", 1, 1), ("Auditing", 7, 30)]


def test_images_of_the_sweep_for_a_risk_are_no_earlier_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    display, said = shown(monkeypatch)
    risk = {"identity": {"calibrated": {"images": 11}}, "sweep": {}, "run_id": "r"}
    display.run_started({**risk, "sweep": {"choices": []}}, done=11, total=40, correct=9)
    assert said == ["11 of 40 images are decided by the sweep for --risk."]
    display.run_started({**risk, "sweep": {"choices": []}}, done=12, total=40, correct=9)
    assert said[1:] == ["Resuming: 12 of 40 images are decided."]


def test_it_says_at_what_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    display, said = shown(monkeypatch)
    monkeypatch.setattr(display, "left", Waits(1))
    monkeypatch.setattr(reading, "stage", "Loading tiny-digits")
    display._watch()
    assert re.fullmatch(r"Loading tiny-digits: \d\.\d s so far", said[0])


def test_a_bar_leaves_room_for_the_terminals_echo() -> None:
    """Ctrl-C is echoed as `^C` behind the bar: on a full line it would begin another one."""
    out = Console(file=io.StringIO(), width=60, force_terminal=True)
    bar = progress.run_bar(out)
    bar.add_task("Scoring", total=4, accuracy="accuracy 50.0 %")
    lines = out.render_lines(bar.get_renderable(), pad=False)
    assert len(lines) == 1 and sum(part.cell_length for part in lines[0]) <= 57


def test_the_accuracy_is_that_of_all_decided_images(monkeypatch: pytest.MonkeyPatch) -> None:
    display, said = shown(monkeypatch)
    display.run_started({"run_id": "r"}, done=2, total=4, correct=2)
    display.sample_scored(record(1, 0))
    display.sample_scored(record(1, 1))
    assert said[0] == "Resuming: 2 of 4 images are decided."
    assert "accuracy 66.7 %" in said[1] and "accuracy 75.0 %" in said[2]


def test_a_question_is_shown_with_the_images_that_it_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    display, said = shown(monkeypatch)
    display.run_started({"run_id": "r"}, 0, 100, 0)
    display.question_checked("differs from a", 40, 0.2)
    display.sample_scored(record(1, 1))
    assert said[0] == "differs from a" and said[1].endswith("p = 0.2, about 75 images in all")
