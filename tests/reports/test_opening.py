"""A report opens with what was asked, answered and left open, in three sentences."""

from __future__ import annotations

import re
from pathlib import Path

from bench.reports.page.page import write_report
from bench.reports.run_view import read_decided_run
from bench.reports.sentences import Opening, make_opening
from bench.store.folder import list_runs
from bench.store.runs import read_run


def opened(path: Path) -> Opening:
    return make_opening(read_decided_run(read_run(path)))


def test_the_sentences_say_what_the_run_holds(stored: Path) -> None:
    path = next(p for p in list_runs(stored / "results") if "trained" in p.name)
    run, said = read_decided_run(read_run(path)), opened(path)
    right, n = int(run.decided.correct.sum()), len(run.decided)
    assert f"{n} images" in said.question and "3 classes" in said.question
    assert "trained on pictures/train" in said.question
    assert f"It was right for {right} of {n} " in said.accuracy and "33.3 %" in said.accuracy
    low, high = run.summary.metrics.accuracy_ci95
    interval = f"it would be right for {100 * low:.1f} to {100 * high:.1f} % (95 % interval)."
    assert f"with this noise and these prompts, {interval}" in said.certainty
    assert re.search(r"Other random noise would change about [\d.]+ of", said.certainty)


def test_a_report_of_one_run_says_them_once_and_of_several_for_each(
    stored: Path, tmp_path: Path
) -> None:
    paths = list_runs(stored / "results")
    write_report(paths[:1], tmp_path / "one.html", most_images=0)
    page = (tmp_path / "one.html").read_text("utf-8")
    assert page.count(opened(paths[0]).accuracy.replace("'", "&#39;")) == 1
    write_report(paths, tmp_path / "all.html", most_images=0)
    page = (tmp_path / "all.html").read_text("utf-8")
    for path in paths:
        assert opened(path).accuracy in page
    assert page.count('class="opening"') == len(paths) + 1
