"""What a person sees while a run is under way, where there is no terminal."""

from __future__ import annotations

import io
from typing import Any

import pluggy
import pytest
from rich.console import Console

from bench.cli import progress
from bench.cli.progress import Progress, count_images
from bench.inputs.survey import reading


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
    waiting = "0 of 2 images decided; the next is under way, 0 s so far"
    assert said == ["Checking, 0 s so far", waiting]


def test_it_says_at_what_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    display, said = shown(monkeypatch)
    monkeypatch.setattr(display, "left", Waits(1))
    monkeypatch.setattr(reading, "stage", "Loading tiny-digits")
    display._watch()
    assert said == ["Loading tiny-digits, 0 s so far"]


def test_a_bar_leaves_room_for_the_terminals_echo() -> None:
    """Ctrl-C is echoed as `^C` behind the bar: on a full line it would begin another one."""
    out = Console(file=io.StringIO(), width=60, force_terminal=True)
    bar = progress.run_bar(out)
    bar.add_task("Scoring", total=4, rate="", accuracy="accuracy 0.500")
    lines = out.render_lines(bar.get_renderable(), pad=False)
    assert len(lines) == 1 and sum(part.cell_length for part in lines[0]) <= 57


def test_the_accuracy_is_that_of_all_decided_images(monkeypatch: pytest.MonkeyPatch) -> None:
    display, said = shown(monkeypatch)
    display.run_started({"run_id": "r"}, done=2, total=4, correct=2)
    display.sample_scored(record(1, 0))
    display.sample_scored(record(1, 1))
    assert said[0] == "Resuming: 2 of 4 images are decided."
    assert "accuracy 0.667" in said[1] and "accuracy 0.750" in said[2]


@pytest.mark.parametrize("there", [True, False])
def test_images_without_labels_are_counted_where_there_is_a_terminal(there: bool) -> None:
    out = io.StringIO()
    with count_images(Console(file=out, force_terminal=there)) as count:
        for done in range(3):
            count(done, 2)
    assert ("2/2" in out.getvalue() and "Scoring" in out.getvalue()) == there
    assert there or not out.getvalue()
    assert "accuracy" not in out.getvalue()


def test_a_question_is_shown_with_the_images_that_it_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    display, said = shown(monkeypatch)
    display.run_started({"run_id": "r"}, 0, 100, 0)
    display.question_checked("differs from a", 40, 0.2)
    display.sample_scored(record(1, 1))
    assert said[0] == "differs from a" and said[1].endswith("p = 0.2, about 75 images in all")
