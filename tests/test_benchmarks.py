"""The benchmarks: parts are continued, and bounds are what is printed."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers.places import ROOT
from helpers.refusals import refused

from bench.contracts.metric import MetricInput
from bench.discovery.queries import metric_specs
from bench.stats.inference import class_metrics
from bench.stats.inference.difference_tests import Answers, Basis, difference_test
from bench.stats.metrics.metric_values import make_metric, measure
from benchmarks import coverage, verdicts
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


@pytest.mark.parametrize("ratio", coverage.RATIOS, ids=lambda ratio: ratio.name)
@pytest.mark.parametrize("drawn", [0.0, 1.0])
def test_simulated_class_intervals_are_those_of_the_package(
    ratio: coverage.Ratio, drawn: float
) -> None:
    rng, images, own = np.random.default_rng(0), 100, np.array([0.5, 0.7, 0.9, 0.6])
    of = coverage.answered(rng, own, images, drawn, 3)
    _, value, bias, reach = coverage.class_intervals(of, ratio)
    ends = np.stack(coverage.class_ends(value, bias, reach, 4 * images), axis=1)
    spec = metric_specs()[ratio.name.lower().replace(" ", "_")]
    labels = np.repeat(np.arange(4), images)
    for run, of_run in enumerate(of.predictions.reshape(3, -1)):
        measured = measure(spec, make_metric(spec), MetricInput(tuple("abcd"), labels, of_run), {})
        assert measured.value == pytest.approx(value[run])
        assert measured.ci95 == pytest.approx(tuple(ends[run]), abs=1e-9)


METRICS_OF_RATIOS = ("balanced_accuracy", "f1_macro", "f1_weighted", "precision_macro")


@pytest.mark.parametrize("name", METRICS_OF_RATIOS)
def test_seeds_that_agree_on_a_rare_class_claim_no_equality(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Errors in the smallest class alone: what no image showed counts in every metric."""
    monkeypatch.setattr(class_metrics, "PERMUTATIONS", 99)
    sizes = coverage.SIZES["8 to 80"]
    held, claimed = coverage.covered_seeds(name, sizes, (0,), 0.1, "equal", 40)
    assert (claimed <= 0.1).all() and (held >= 0.85).all()


@pytest.mark.parametrize("name", ["accuracy", *METRICS_OF_RATIOS])
def test_nothing_is_claimed_over_seeds_that_is_not_over_images(name: str) -> None:
    spec, rng = metric_specs()[name], np.random.default_rng(2)
    labels = np.repeat(np.arange(5), coverage.SIZES["8 to 80"])
    methods = []
    for wrong in (0.02, 0.05):
        said = np.where(rng.random((4, 1, len(labels))) < wrong, (labels + 1) % 5, labels)
        values = np.stack([class_metrics.image_values(spec, labels, run[0])[None] for run in said])
        basis: Basis = "images" if spec.mean_over_images else "influence"
        methods.append(Answers("m", said, values, basis))
    a, b = methods
    images, seeds = (
        difference_test(spec, labels, a, b, margin=0.1, over=over) for over in coverage.OVERS
    )
    assert images.p is not None and seeds.p is not None and images.p <= seeds.p
    assert images.p_equal is not None and seeds.p_equal is not None
    assert images.p_equal <= seeds.p_equal
    assert seeds.interval[0] <= images.interval[0] and images.interval[1] <= seeds.interval[1]
