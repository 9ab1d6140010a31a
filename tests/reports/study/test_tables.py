"""A study's table in every format, pivoted, and its figure."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from textwrap import wrap

import numpy as np
import pytest
from helpers.command import bench
from helpers.mutations import write_unsealed
from helpers.runs import store
from helpers.studies import GRID, store_study

from bench.reports.study.methods import MethodRuns, select_same_seeds
from bench.reports.study.report import study_report
from bench.reports.study.tables import study_tables
from bench.reports.text import Table, to_latex
from bench.stats.inference.shares import Estimate, accuracy_interval
from bench.store.formats.decisions import as_decisions
from bench.store.locking import locked
from bench.store.studies import Published, read_study, write_study

ODD = Table(
    "Runs_of 10 %",
    ["run", "gain"],
    [["a_b & 50 %", "-1.5"], ["#1 $x$ {y}", "2"], [r"“a\b” ~^ – ± ≤", "−0.3"]],
    frozenset({"gain"}),
    below=["a & b_c"],
)
FORMATS = ("markdown", "latex", "html", "csv")


def test_the_table_in_every_format_and_pivoted(tmp_path: Path) -> None:
    study, results = tmp_path / "small.toml", ("--results", tmp_path / "r")
    study.write_text(f'question = "Is guessing as good?"\n{GRID}')
    bench("study", study, *results, "--pilot")
    shown = {f: bench("study", "small", *results, "--show", "--format", f).out for f in FORMATS}
    shown["json"] = bench("study", "small", *results, "--show", "--json").out
    for form in ("markdown", "html", "json"):
        assert "Is guessing as good?" in shown[form]
    assert "| backbone |" in shown["markdown"] and r"\toprule" in shown["latex"]
    assert shown["html"].startswith("<!doctype html>")
    assert shown["csv"].splitlines()[0].startswith("backbone,")
    assert json.loads(shown["json"])["done"] == 0  # pilots alone
    axes = ("--rows", "backbone", "--columns", "seed", "--value", "n", "--format", "csv")
    pivot = bench("study", study, *results, "--show", *axes).out
    assert pivot.splitlines() == ["backbone,0,1", "random,10,10", "majority,10,–"]
    drawn = bench("study", study, *results, "--show", "--figure", tmp_path / "f.svg")
    assert drawn.code == 0 and f"Wrote {tmp_path / 'f.svg'}" in drawn.err
    assert "digits/test" in (tmp_path / "f.svg").read_text()
    flat = bench("study", study, *results, "--show", "--value", "n")
    assert flat.refuses("--value", "--rows")
    wrong = bench("study", study, *results, "--show", "--rows", "sed", "--columns", "backbone")
    assert wrong.refuses("'seed'")


def test_a_board_of_a_folder_has_the_name_of_the_folder(tmp_path: Path) -> None:
    run = store(tmp_path, [0, 1, 1], [0, 1, 0])
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["dataset"]["name"], manifest["identity"]["dataset"]["name"] = "photos", "folder"
    (run / "manifest.json").write_text(json.dumps(manifest))
    write_unsealed(run / "summary.json", json.loads((run / "summary.json").read_text()))
    report = study_report(store_study(tmp_path, [run]))
    (method,) = report.methods
    assert method.board == f"photos/{manifest['dataset']['split']}" and method.looks == 1
    assert report.looks == {method.board: 1}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no TeX on this machine")
def test_latex_compiles(tmp_path: Path) -> None:
    head = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{booktabs}"
    page = rf"{head}\begin{{document}}{to_latex([ODD, ODD])}\end{{document}}"
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "page.pdf").is_file(), done.stdout[-2000:]


def test_latex_is_balanced_and_escaped() -> None:
    preamble, _, text = to_latex([ODD]).partition("\n")
    assert preamble.startswith("% ") and "booktabs" in preamble
    open_environments: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert not open_environments and r"\begin{tabular}{lr}" in text
    lines = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(lines) == 4
    for line in lines:  # one separator between two columns; every other & is escaped
        assert len(re.findall(r"(?<!\\)&", line)) == 1
    printed = re.sub(r"\\(label|begin|end)\{[^}]*\}(\{lr\})?", "", text)
    printed = re.sub(r"(?<!\\)\$(-|\\pm|\\leq)\$", "", printed)
    assert not re.search(r"(?<!\\)[%#$_]", printed)
    assert r"\{y\}" in printed


def test_a_study_asks_about_its_seeds_or_about_any(tmp_path: Path) -> None:
    """One method is better in these runs, by less than the runs of the other differ."""
    labels, rng = [0, 1, 2, 1] * 50, np.random.default_rng(0)
    runs = []
    for backbone, shares in (("a", (0.6, 0.7, 0.8)), ("b", (0.79, 0.8, 0.81))):
        for seed, share in enumerate(shares):
            said: list[int | None] = [y if rng.random() < share else (y + 1) % 3 for y in labels]
            runs.append(store(tmp_path, labels, said, backbone=backbone, seed=seed))
    shown = ("study", "small", "--show", "--results", tmp_path)
    intervals, p = {}, {}
    for over in ("images", "seeds"):
        store_study(tmp_path, runs, over=over)
        report = bench(*shown, "--json").json
        (one,) = report["differences"][0]["differences"]
        assert report["tests_over"] == over and one["runs"] == [3, 3]
        found = one["difference"]
        assert found["method"] == {"images": "permutation", "seeds": "seeds"}[over]
        low, high = found["interval"]
        assert (found["p"] <= 0.05) == one["different"] == (low > 0 or high < 0)
        (a, b) = sorted(report["methods"], key=lambda method: method["method"])
        assert (a["rank"], b["rank"]) == (
            ([2, 2], [1, 1]) if one["different"] else ([1, 2], [1, 2])
        )
        intervals[over], p[over] = a["spread"]["interval"], found["p"]
    assert p["images"] < 0.01 < 0.05 < p["seeds"]
    (low, high), (lowest, highest) = intervals["images"], intervals["seeds"]
    assert lowest < low - 0.05 and high + 0.05 < highest
    apart = bench(*shown, "--over", "template")
    assert apart.refuses("--over")


def test_the_range_over_templates_is_beside_the_accuracy(tmp_path: Path) -> None:
    labels = [0, 1, 2, 1] * 5
    runs = []
    for seed, wrong in enumerate((2, 5, 8)):  # one run for each template
        answers: list[int | None] = [*labels]
        answers[:wrong] = [(label + 1) % 3 for label in labels[:wrong]]
        runs.append(store(tmp_path, labels, answers, seed=seed))
    folder = store_study(tmp_path, runs)
    study = read_study(folder)
    cells = [
        cell.model_copy(update={"axes": {**cell.axes, "template": f"{place} {{class}}"}})
        for place, cell in enumerate(study.cells)
    ]
    axes = [*study.axes, "template"]
    with locked(folder) as writable:
        write_study(writable, study.model_copy(update={"cells": cells, "axes": axes}))
    table = study_tables(study_report(folder))[0]
    place = table.head.index("templates")
    assert table.head[place - 1] == "accuracy, %"
    accuracy, templates = table.texts[0][place - 1 : place + 1]
    assert accuracy.startswith("75.0 (") and templates == "60.0–90.0"
    apart = study_tables(study_report(folder, over=["seed"]))[0]
    assert "templates" not in apart.head and len(apart.rows) == 3


def test_over_seeds_only_methods_with_the_same_seeds_are_compared() -> None:
    """While a study runs, some have fewer."""
    seeds = {"a": "012", "b": "012", "c": "01", "d": "123"}
    nothing = as_decisions([])
    members = [
        MethodRuns(
            *(name, np.zeros((len(of), 1, 0), np.int64), np.zeros((len(of), 1, 0))),
            axes={},
            members=[],
            seeds=tuple(of),
            decided=nothing,
        )
        for name, of in seeds.items()
    ]
    assert [one.name for one in select_same_seeds(members)] == ["a", "b"]
    assert select_same_seeds(members[2:3]) == []


@pytest.mark.parametrize(
    ("ours", "images", "margin", "differs", "verdict"),
    [
        (0.73, 3669, 0.03, (), "repeats, within ±3"),
        (0.73, 3669, 0.03, ("levels: others",), "within ±3"),
        (0.73, 3669, None, (), "undecided"),
        (0.73, 3669, 0.005, (), "undecided"),
        (0.5, 3669, 0.03, (), "differs"),
        (0.9, 20, 0.03, (), "undecided"),
    ],
)
def test_a_published_figure_is_compared_by_newcombes_interval(
    ours: float,
    images: int,
    margin: float | None,
    differs: tuple[str, ...],
    verdict: str,
) -> None:
    figure = Published(
        source="a paper", value=0.725, images=3669, margin=margin, differs=[*differs]
    )
    shares = ((ours, images), (0.725, 3669))
    a, b = (Estimate(share, accuracy_interval(round(share * n), n)) for share, n in shares)
    ends = (a - b).interval
    assert figure.model_copy(update={"difference_ci95": ends}).verdict == verdict
    assert figure.verdict is None
    rehearsal = figure.model_copy(update={"difference_ci95": ends, "rehearsal": True})
    assert rehearsal.verdict == "rehearsal: not comparable"


def test_a_study_answers_above_its_table_and_has_three_lines_below(tmp_path: Path) -> None:
    """The sentence has the difference of the two best methods, as the table of differences."""
    labels = [0, 1, 2, 1] * 50
    said: dict[str, list[int | None]] = {
        name: [y if i >= wrong else (y + 1) % 3 for i, y in enumerate(labels)]
        for name, wrong in (("good", 10), ("fair", 14), ("bad", 90))
    }
    runs = [store(tmp_path, labels, said[name], backbone=name) for name in said]
    report = study_report(store_study(tmp_path, runs))
    first, *others = study_tables(report)
    pair = next(p for p in report.differences[0].differences if {p.a, p.b} == {"good", "fair"})
    low, high = (abs(round(100 * end, 1)) for end in pair.difference.interval or ())
    assert first.above.endswith(
        f"good against fair: +2.0 points (−{min(low, high)} to +{max(low, high)}), not shown to"
        " differ; it is shown to be better than 1 of 2 others."
    )
    for table in (first, *others):
        assert sum(len(wrap(note, 80)) for note in table.below) <= 3
        assert table.wide.below == [*table.below, *table.more]
    assert others[-1].more and "--margin" in others[-1].more[-1]
