"""A study that stops when its question is answered, round by round."""

import json
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.mutations import write_unsealed

from bench.running.study.course import next_round
from bench.store.folder import read_manifest

STOPPING = """
datasets = ["digits"]
backbones = ["random", "majority", "nearest-mean"]
stop = "best"
first_round = 20
growth = 2.0
"""


@pytest.fixture
def stopping(tmp_path: Path) -> Path:
    file = tmp_path / "stopping.toml"
    file.write_text(STOPPING)
    return file


PUBLISHED = """
[[published]]
source = "Somebody, 2020, Table 1"
backbone = "nearest-mean"
value = 0.9
"""


def test_methods_leave_and_the_study_stops(stopping: Path, tmp_path: Path) -> None:
    results, figure = tmp_path / "r", tmp_path / "figure.svg"
    stopping.write_text(STOPPING + PUBLISHED)
    report = bench("study", stopping, "--results", results, "--json").json
    (board,) = report["standings"]
    assert board["decided"] and board["images"] < board["total"] == 360
    verdicts = {m["method"]: m["verdict"] for m in board["methods"]}
    assert verdicts == {"nearest-mean": "best", "random": "left", "majority": "left"}
    assert report["differences"] == [] and {m["rank"] for m in report["methods"]} == {None}
    assert "nearest-mean is the best, shown after" in report["answers"]["digits"]
    runs = {row["axes"]["backbone"]: row["run_id"] for row in report["rows"]}
    samples = {name: set(read_manifest(results / run).samples) for name, run in runs.items()}
    assert samples["random"] <= samples["nearest-mean"] and len(samples["random"]) == 20

    again = bench("study", stopping, "--results", results, "--json")
    assert again.json["standings"] == report["standings"]
    assert again.err.count("stored already") == again.err.count(" backbone ") > 2
    shown = bench("study", "stopping", "--show", "--results", results, "--figure", figure).out
    assert "verdicts on images in random order" in shown and "worse than the best" in shown
    assert "published and ours" in shown and "undecided" not in shown
    assert "on the images of each" in figure.read_text()
    left = [m for m in board["methods"] if m["verdict"] == "left"]
    assert all(m["p"] <= 0.05 for m in left) and "strict" not in report
    assert "the method named is not a best one in at most 5 %" in " ".join(shown.split())


def test_a_strict_study_says_so_and_a_study_of_an_earlier_version_is_shown_as_it_was(
    stopping: Path, tmp_path: Path
) -> None:
    results = ("--results", tmp_path / "r")
    stopping.write_text(STOPPING + "strict = true\n")
    (board,) = bench("study", stopping, *results, "--json").json["standings"]
    assert board["decided"]
    file = tmp_path / "r/studies/stopping/study.json"
    state = json.loads(file.read_text())
    assert state["strict"] is True
    for method in state["standings"][0]["methods"]:
        method.pop("p", None)
    write_unsealed(file, state)
    shown = bench("study", "stopping", "--show", *results).out
    assert "not the best" in shown and "worse than the best" not in shown


def test_methods_within_the_margin_are_not_called_worse(stopping: Path, tmp_path: Path) -> None:
    stopping.write_text(STOPPING.replace(', "nearest-mean"', "") + "margin = 0.3\n")
    report = bench("study", stopping, "--results", tmp_path / "r", "--json").json
    (board,) = report["standings"]
    assert board["decided"] and board["methods"][1]["p"] is None
    shown = " ".join(bench("study", "stopping", "--show", "--results", tmp_path / "r").out.split())
    assert "within the margin" in shown
    assert "neither a best one nor within the margin of it in" in shown


def test_seeds_are_one_method_and_a_failed_method_is_left_out(
    stopping: Path, tmp_path: Path
) -> None:
    text = STOPPING.replace('"majority"', '{name = "nope", label = "nope"}')
    stopping.write_text(text.replace("stop =", "seeds = [0, 1]\nstop ="))
    refused = bench("study", stopping, "--results", tmp_path / "r")
    assert refused.refuses("nope")
    stopping.write_text(STOPPING.replace("stop =", "seeds = [0, 1]\nstop ="))
    (board,) = bench("study", stopping, "--results", tmp_path / "r", "--json").json["standings"]
    assert len(board["methods"]) == 3 and board["decided"]


def test_the_first_round_is_the_pilot(stopping: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
    plan = bench("study", stopping, *results, "--dry-run", "--json").json
    assert plan["stop"] == {"least": 60, "most": 1080}
    report = bench("study", stopping, *results, "--pilot", "--json").json
    assert report["standings"][0]["images"] == 20
    shown = bench("study", stopping, *results, "--dry-run").out
    assert "It stops when its question is answered" in shown


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("limit = 20", "limit"),
        ("pilot = 8", "first_round"),
        ('until = "width 0.1"', "until"),
        ("growth = 1.0", "growth"),
        ("first_round = 0", "first_round"),
        ('stop = "bst"', "stop"),
        ("strict = 1", "strict"),
        ('stop = "ranked"\nstrict = true', "strict"),
    ],
)
def test_wrong_entries_are_refused(stopping: Path, tmp_path: Path, line: str, problem: str) -> None:
    key = line.split(" ")[0]
    kept = [old for old in STOPPING.splitlines() if not old.startswith(f"{key} ")]
    stopping.write_text("\n".join([*kept, line]))
    refused = bench("study", stopping, "--results", tmp_path / "r")
    assert refused.refuses(problem)


def test_a_growth_without_a_stop_is_refused(stopping: Path, tmp_path: Path) -> None:
    stopping.write_text(STOPPING.replace('stop = "best"\n', "").replace("first_round = 20\n", ""))
    refused = bench("study", stopping, "--results", tmp_path / "r")
    assert refused.refuses("growth")


def test_rounds_and_prefixes() -> None:
    assert [next_round(n, 1.5, 100) for n in (1, 20, 90)] == [2, 30, 100]


def test_the_state_of_a_study_without_a_stop_is_as_before(stopping: Path, tmp_path: Path) -> None:
    plain = STOPPING.replace('stop = "best"\n', "limit = 4\npilot = 0\n")
    stopping.write_text(plain.replace("first_round = 20\n", "").replace("growth = 2.0\n", ""))
    bench("study", stopping, "--results", tmp_path / "r")
    state = json.loads((tmp_path / "r/studies/stopping/study.json").read_text())
    assert "stop" not in state and "standings" not in state
