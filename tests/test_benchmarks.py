"""The benchmarks: parts are continued, and bounds are what is printed."""

import json
import re
import sys
from pathlib import Path

import pytest
from helpers.places import ROOT
from helpers.refusals import refused

from benchmarks import verdicts
from benchmarks.gpu.report import CUT, DONE, RUNNING, SKIPPED, Measured, Report, Row
from benchmarks.gpu_check import main

GPU: Row = {"device": "cuda", "small": False}


def test_a_report_is_continued_after_a_cut(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    report = Report(out, GPU)
    report.parts["one"] = Measured(DONE, 5, rows=[{"speed": 1234.5, "ok": True}])
    report.parts["two"] = Measured(RUNNING, 5, rows=[{"said": "a|b"}])
    report.write()  # and here the machine is taken away
    again = Report(out, GPU)
    assert again.ended("one") and not again.ended("two") and not again.correct
    again.parts["two"].status = CUT
    assert "## two: cut off" in again.markdown() and "| 1,234 | yes |" in again.markdown()
    again.parts["two"].status = SKIPPED
    assert again.correct
    again.parts["one"].rows[0]["ok"] = False
    assert not again.correct
    with refused("--out", kind=SystemExit):
        Report(out, {**GPU, "device": "cpu"})


def test_what_does_not_fit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.json"
    words = ["--small", "--device", "cpu", "--budget", "0.5", "--only", "machine,switches of sd21"]
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(out), *words])
    assert main() == 0
    assert "switches of sd21: skipped" in capsys.readouterr().err
    statuses = [part["status"] for part in json.loads(out.read_text())["parts"].values()]
    assert statuses == [SKIPPED, SKIPPED]


def test_the_table_of_promises_is_printed_by_the_benchmark() -> None:
    page = (ROOT / "docs" / "concepts" / "racing.md").read_text("utf-8")
    for bound in verdicts.BOUNDS:
        row = re.escape(f"| {' | '.join(bound)} | ")
        figures = re.findall(rf"^{row}(\S+) % \|$", page, re.MULTILINE)
        assert len(figures) == 1 and float(figures[0]) <= 5
