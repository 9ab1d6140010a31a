"""The benchmarks: parts are continued, and bounds are what is printed."""

import re
from pathlib import Path

from helpers.places import ROOT
from helpers.refusals import refused

from benchmarks import verdicts
from benchmarks.gpu.report import CUT, DONE, RUNNING, SKIPPED, Measured, Report, Row

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


def test_the_table_of_promises_is_printed_by_the_benchmark() -> None:
    page = (ROOT / "docs" / "concepts" / "racing.md").read_text("utf-8")
    for bound in verdicts.BOUNDS:
        row = re.escape(f"| {' | '.join(bound)} | ")
        figures = re.findall(rf"^{row}(\S+) % \|$", page, re.MULTILINE)
        assert len(figures) == 1 and float(figures[0]) <= 5
