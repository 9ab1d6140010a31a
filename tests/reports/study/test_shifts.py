"""Changes of a study's methods under shifts, their differences, and effective robustness."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.runs import store
from helpers.studies import store_study

from bench.reports.facts import percent_text
from bench.reports.study.report import study_report
from bench.stats.inference.shares import Estimate, accuracy_interval

SHIFTS = [("usual", "shifted")]
LABELS = [0, 1, 2, 0] * 10
WRONG = {  # backbone → number of wrong answers on each dataset
    "a": {"usual": 4, "shifted": 20},
    "b": {"usual": 8, "shifted": 10},
}


def stored(results: Path) -> Path:
    """Store a study of two backbones on two datasets; returns its folder."""
    runs = []
    for backbone, wrong in WRONG.items():
        for dataset, count in wrong.items():
            answers: list[int | None] = [*LABELS]
            answers[:count] = [(label + 1) % 3 for label in LABELS[:count]]
            about: dict[str, Any] = {"dataset": dataset, "backbone": backbone}
            config = {"dataset": dataset, "limit": None}
            runs.append(store(results, LABELS, answers, config=config, **about))
    return store_study(results, runs, shifts=SHIFTS)


def test_changes_and_their_difference(tmp_path: Path) -> None:
    n, (a, b, difference) = len(LABELS), study_report(stored(tmp_path)).changes
    for change in (a, b):
        before, after = (n - WRONG[change.method][name] for name in ("usual", "shifted"))
        assert (change.before, change.after, change.robustness) == (before / n, after / n, None)
        usual, shifted = (Estimate(c / n, accuracy_interval(c, n)) for c in (before, after))
        assert change.change.estimate == pytest.approx((after - before) / n)
        assert change.change.interval == pytest.approx((shifted - usual).interval)
    assert (difference.method, difference.less) in (("b", "a"), ("a", "b"))
    sign = 1 if difference.method == "b" else -1
    assert difference.change.estimate == pytest.approx(
        sign * (b.change.estimate - a.change.estimate)
    )
    assert difference.before == pytest.approx(sign * (4 - 8) / n)
    low, high = difference.change.interval
    assert low < difference.change.estimate < high and low * high > 0


def test_the_worst_group_has_its_accuracy_with_an_interval(tmp_path: Path) -> None:
    groups, runs = ["land", "water", None, "land"] * 10, []
    for wrong in (4, 9):
        answers: list[int | None] = [*LABELS]
        answers[:wrong] = [(label + 1) % 3 for label in LABELS[:wrong]]
        runs.append(store(tmp_path, LABELS, answers, groups=groups, backbone=f"b{wrong}"))
    folder = store_study(tmp_path, runs)
    for method in study_report(folder).methods:
        wrong = int(method.method.removeprefix("b"))
        right = [n >= wrong for n, group in enumerate(groups) if group == "land"]
        worst = method.worst_group  # land has half of the images, and water a quarter
        assert worst is not None and (worst.group, worst.n) == ("land", len(right))
        assert worst.accuracy == pytest.approx(sum(right) / len(right))
        assert worst.accuracy_ci95 == pytest.approx(accuracy_interval(sum(right), len(right)))
        assert worst.groups == 2 and worst.lowest_ci95 is not None
        assert worst.lowest_ci95[0] < worst.accuracy < worst.lowest_ci95[1]
        text = percent_text(worst.accuracy, worst.lowest_ci95)
        assert text in bench("study", folder, "--show").out


def reference(path: Path, models: int, columns: str = "model,usual,shifted") -> Path:
    """Write the accuracies of models that lose a tenth of their accuracy."""
    shares = np.linspace(0.3, 0.95, models)
    lines = [f"model {place},{share},{0.9 * share}" for place, share in enumerate(shares)]
    path.write_text("\n".join([columns, *lines, "model x,0.5,"]))
    return path


def test_effective_robustness_is_what_other_models_do_not_foretell(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    report = study_report(folder, reference=reference(tmp_path / "models.csv", 30))
    *changes, difference = report.changes
    assert difference.less is not None and difference.robustness is None
    for change in changes:
        assert change.robustness is not None
        assert change.robustness.expected == pytest.approx(0.9 * change.before, abs=0.02)
        effective = change.robustness.effective
        low, high = effective.interval
        assert effective.estimate == pytest.approx(change.after - change.robustness.expected)
        assert low < effective.estimate < high
    shown = bench("study", folder, "--show", "--reference", tmp_path / "models.csv").out
    assert "Change in accuracy under a shift" in shown and "effective" in shown


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("model,usual\nx,0.5", "'shifted'"),
        ("model,usual,shifted\nx,50,0.4", ":2"),
        ("model,usual,shifted\n" + "x,0.5,0.4\n" * 9, "10 models"),
        ("model,usual,shifted\n" + "x,0.5,0.4\n" * 10, "models.csv"),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused(
    tmp_path: Path, content: str, problem: str
) -> None:
    folder, file = stored(tmp_path), tmp_path / "models.csv"
    file.write_text(content)
    refused = bench("study", folder, "--show", "--reference", file)
    assert refused.refuses(problem)


def test_a_reference_needs_shifts_and_accuracies(tmp_path: Path) -> None:
    file = reference(tmp_path / "models.csv", 10)
    folder = stored(tmp_path)
    other = bench("study", folder, "--show", "--reference", file, "--metric", "f1_macro")
    assert other.refuses("--metric")
    plain = store_study(tmp_path, [store(tmp_path, LABELS, LABELS)], "plain")
    none = bench("study", plain, "--show", "--reference", file)
    assert none.refuses("`shifts`")
    early = bench("study", "any.toml", "--reference", file)
    assert early.refuses("--reference", "--show")
