"""A study's figure as a file: its colours suit a light page and a dark one."""

from __future__ import annotations

import re
from pathlib import Path

from helpers.runs import store
from helpers.studies import store_study

from bench.reports.study.figures import forest_plot
from bench.reports.study.report import study_report


def test_every_colour_has_another_one_on_a_dark_page(tmp_path: Path) -> None:
    results, trained = tmp_path / "results", "d/train"
    runs = [store(results, [0, 1, 2] * 8, [0, 1, 0] * 8, backbone="open")]
    runs.append(store(results, [0, 1, 2] * 8, [0, 1, 2] * 8, backbone="own", trained_on=trained))
    drawing = forest_plot(study_report(store_study(results, runs)))
    for name in ("one.svg", "two.svg"):
        drawing.write(tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    style, body = text.split("</style>", 1)
    assert "@media (prefers-color-scheme: dark)" in style
    used = set(re.findall(r"(?:fill|stroke): #\w+", body))
    assert len(used) >= 5
    assert used <= set(re.findall(r'\[style\*="((?:fill|stroke): #\w+)"\]', style))
    assert text == (tmp_path / "two.svg").read_text()  # no date, and no chance, is in it
