"""The leaderboard never ranks together what does not compare; pictures are made of a run."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.command import bench
from helpers.given import make_folder
from helpers.matrix import matrix
from helpers.places import ROOT
from helpers.runs import store
from helpers.scores import store_ended
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.discovery.loading import load_plugins
from bench.reports.facts import percent_text
from bench.reports.leaderboard.board import make_boards, row_labels
from bench.reports.leaderboard.ranking import _ranks, leaderboard
from bench.stats.inference.difference_tests import holm, ranks
from bench.stats.inference.paired import ALPHA, mcnemar

LABELS = [i % 3 for i in range(100)]
REPORTED = {"dataset": "d", "split": "test", "backbone": "b", "strategy": "s", "accuracy": 0.7}


def right(share: float) -> list[int | None]:
    """Predictions of which the first so many are right: nested, so that pairs tell."""
    return [y if i < share * len(LABELS) else (y + 1) % 3 for i, y in enumerate(LABELS)]


def put(results: Path, accuracy: float, **changes: Any) -> str:
    return store(results, LABELS, right(accuracy), **changes).name


def test_ranks_count_within_a_kind(tmp_path: Path) -> None:
    wanted = {
        (put(tmp_path, 0.5, backbone="zero-shot-a"), (2, 2)),
        (put(tmp_path, 0.6, backbone="zero-shot-b"), (1, 1)),
        (put(tmp_path, 0.9, backbone="trained", trained_on="d/train"), (1, 1)),
        (put(tmp_path, 0.7, backbone="trained-too", trained_on="d/train"), (2, 2)),
        (put(tmp_path, 0.8, backbone="unknown", trained_on="unknown"), None),
        (put(tmp_path, 0.7, backbone="unknown-too", trained_on="unknown"), None),
        (put(tmp_path, 0.6, backbone="undeclared", trained_on="undeclared"), None),
        (put(tmp_path, 0.5, backbone="undeclared-too", trained_on="undeclared"), None),
        (put(tmp_path, 0.99, backbone="subset", n_total=200), None),
        (put(tmp_path, 0.95, backbone="replay", replayed_from="x"), (1, 1)),  # no rival
        (put(tmp_path, 0.55, backbone="blind", control="noise"), None),
        (put(tmp_path, 0.4, version=2), None),
        (put(tmp_path, 0.3, backbone="other-pictures", fingerprint="0" * 64), None),
        ("", None),
    }
    store(tmp_path, LABELS, right(1), backbone="incomplete", complete=False)
    reported = [{**REPORTED, "source": "a paper, table 1"}]
    (tmp_path / "reported.json").write_text(json.dumps(reported))
    assert {(row.run_id or "", row.rank) for row in leaderboard(tmp_path)} == wanted
    shown = bench("leaderboard", "--results", tmp_path, "--wide", COLUMNS="400")
    assert "trained on d/train" in shown.out and "(1) a paper, table 1" in shown.out
    assert "subset of 200, +" in shown.out and "replayed" not in shown.out.partition("Rank")[0]
    everything = bench("leaderboard", "--results", tmp_path, "--all")
    assert "--all: 2 more rows" in shown.out and "replayed" in everything.out
    assert "control" in everything.out
    for title in ("version 1, data ffffffff", "version 1, data 00000000", "d/test, version 2"):
        assert title in shown.out


def test_a_run_that_a_question_ended_is_marked_and_has_no_rank(tmp_path: Path) -> None:
    predictions = [y if i % 10 else (y + 1) % 3 for i, y in enumerate(LABELS)]
    path, answer = store_ended(tmp_path, LABELS, predictions, backbone="ended")
    put(tmp_path, 0.5, backbone="whole")
    rows = {row.backbone: row for row in leaderboard(tmp_path)}
    ended, whole = rows["ended"], rows["whole"]
    assert ended.against_first is not None
    assert "(" not in row_labels(ended)["difference"], "its interval is of a fixed number of images"
    assert (ended.rank, whole.rank, rows["always-wrong"].rank) == (None, (1, 1), (2, 2))
    assert ended.against_first is not None and ended.against_first.difference.n == answer.n
    assert answer.n < 20 and ended.anytime_ci95 == answer.anytime_ci95 and not whole.anytime_ci95
    assert ended.accuracy_ci95 and ended.accuracy_ci95[0] > answer.interval[0]
    run_id = next(row.run_id for row in rows.values() if row.backbone == "always-wrong")
    mark = f"stopped at {answer.n} of 100 images: better than {run_id} (anytime-valid, 5 %)"
    assert ended.stopped == mark and whole.stopped is None
    low, high = answer.interval
    for form in ("table", "markdown", "html"):
        command = ("leaderboard", "--results", tmp_path, "--format", form, "--wide")
        shown = " ".join(bench(*command, COLUMNS="400").out.split())
        assert f"({100 * low:.1f}–{100 * high:.1f})" in shown
        assert f"stopped at {answer.n} of 100" in shown
    [listed] = [
        r for r in bench("runs", "--results", tmp_path, "--json").json if r["run_id"] == path.name
    ]
    assert listed["stopped"] == mark and listed["anytime_ci95"] == [low, high]
    compared = bench("compare", run_id, path.name, "--results", tmp_path)
    assert f"{path.name} was {mark}" in compared.err
    assert f"{path.name} was {mark}" in bench("show", path, "--metric", "f1_macro").err
    shown = " ".join(bench("show", path).out.split())
    assert percent_text(ended.accuracy, answer.interval) in shown


def test_a_rank_counts_the_runs_that_are_better_among_all_pairs(tmp_path: Path) -> None:
    """90 and 84 right of 100: six differ, p = 0.03 of this pair alone. 80: ten do, p = 0.002."""
    for backbone, share in (("a", 0.9), ("b", 0.89), ("c", 0.84), ("d", 0.8), ("e", 0.5)):
        put(tmp_path, share, backbone=backbone)
    rank_of = {row.backbone: row.rank for row in leaderboard(tmp_path)}
    assert rank_of == {"a": (1, 3), "b": (1, 3), "c": (1, 4), "d": (3, 4), "e": (5, 5)}
    for form in ("table", "markdown", "html", "latex"):
        shown = " ".join(bench("leaderboard", "--results", tmp_path, "--format", form).out.split())
        assert shown.count("bench explain rank") == 1


def test_a_board_has_the_same_seven_columns_everywhere(tmp_path: Path) -> None:
    """What all rows share stands above, marks are words, and the legend is one line."""
    put(tmp_path, 0.9, backbone="whole", trained_on="d/train")
    put(tmp_path, 0.8, backbone="part", n_total=200, scoring={"loss": "l2"})
    (tmp_path / "reported.json").write_text(json.dumps({**REPORTED, "source": "a paper, table 1"}))
    head = ["rank", "model", "strategy", "accuracy, %", "cost", "images", "marks"]
    boards = make_boards(leaderboard(tmp_path))
    for board in boards:
        assert [n for n in board.table().head if n not in head] == []
        marks = [mark.word for line in board.lines for mark in line.marks.values()]
        assert all(re.fullmatch(r"[\w-]*\??", word) for word in marks), marks
        assert {*board.table("page").head} - {*board.table().head} == {"key"}
        assert len(board.table("wide").head) > len(board.table().head)
    lines = bench("leaderboard", "--results", tmp_path, COLUMNS="80").out.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("Intervals:"))
    assert lines[start - 1 : start + 3 : 2] == ["", ""] and lines[start + 2] == "Next:"
    for form, pattern in {"markdown": r"^\| rank .*$", "latex": r"^rank & .*$"}.items():
        out = bench("leaderboard", "--results", tmp_path, "--format", form).out
        heads = [
            [
                cell.strip(" \\").replace("\\%", "%")
                for cell in re.split(r"[|&]", line)
                if cell.strip()
            ]
            for line in re.findall(pattern, out, re.M)
        ]
        assert heads == [board.table().head for board in boards]


def test_no_other_run_moves_a_published_one(tmp_path: Path) -> None:
    for backbone, share in (("a", 0.9), ("b", 0.86), ("c", 0.5)):
        put(tmp_path / "published", share, backbone=backbone)
    before = {row.run_id: row.rank for row in leaderboard(tmp_path)}
    assert sorted(rank for rank in before.values() if rank) == [(1, 2), (1, 2), (3, 3)]
    added: dict[str, Any] = {}
    for backbone, share in (("best", 1.0), ("worst", 0.1), ("between", 0.87), ("too", 0.88)):
        alone = tmp_path / "alone" / backbone
        run_id = put(alone, share, backbone=backbone)
        rows = {r.run_id: r for r in leaderboard([alone, tmp_path / "published"])}
        added[run_id] = rows[run_id].rank
        put(tmp_path / "mine", share, backbone=backbone)
    rows = {row.run_id: row for row in leaderboard(tmp_path)}
    assert {run_id: rows[run_id].rank for run_id in before} == before
    assert {run_id: rows[run_id].rank for run_id in added} == added
    assert sorted(added.values()) == [(1, 1), (1, 3), (1, 3), (4, 4)]
    shown = bench("leaderboard", tmp_path / "published", "--results", tmp_path / "mine").out
    marked = [line for line in shown.splitlines() if line.rstrip().endswith("yours")]
    assert len(marked) == 4


def test_a_run_in_two_folders_counts_once(tmp_path: Path) -> None:
    put(tmp_path / "mine", 0.9)
    put(tmp_path / "theirs", 0.9)
    put(tmp_path / "theirs", 0.8, seed=1)
    rows = leaderboard([tmp_path / "mine", tmp_path / "theirs", tmp_path / "not there"])
    assert len(rows) == 2
    listed = bench("leaderboard", tmp_path / "theirs", "--results", tmp_path / "mine", "--json")
    assert len(listed.json) == 2


def in_every_format(results: Path) -> dict[str, Any]:
    options = {f: ("--format", f) for f in ("table", "markdown", "csv", "html")} | {
        "json": ("--json",)
    }
    command = ("leaderboard", "--results", results, "--wide")
    return {f: bench(*command, *o) for f, o in options.items()}


def test_rows_that_differ_look_different(tmp_path: Path) -> None:
    """What differs is a column; what all share stands above, once; defaults are not there."""
    scoring = {"loss": "l2", "space": "prediction", "draw_plan": "grid"}
    for seed, loss in ((0, "l2"), (7, "l2"), (0, "l1")):
        put(tmp_path, 0.9, seed=seed, scoring={**scoring, "loss": loss})
    shown = {
        **in_every_format(tmp_path),
        "usual": bench("leaderboard", "--results", tmp_path),
    }
    for name in ("usual", "table", "markdown", "html"):
        assert shown[name].out.count("space=prediction") == (name != "usual"), name
        assert shown[name].out.count("a class 0") == 1, name
        assert "draws=5" in shown[name].out, name
    assert "seed=7" in shown["usual"].out and "loss=l1" in shown["usual"].out
    assert re.search(r"\| seed \| loss \|", shown["markdown"].out)
    rows = json.loads(shown["json"].out)
    settings = [row["settings"] for row in rows]
    assert {(made["seed"], made["loss"]) for made in settings} == {(0, "l2"), (7, "l2"), (0, "l1")}
    assert {"prompt", "space", "plan", "dtype"} <= settings[0].keys()
    columns = shown["csv"].out.splitlines()[0].split(",")
    assert "settings" in rows[0] and rows[0].keys() <= {
        *columns,
        "accuracy_ci95",
        "anytime_ci95",
        "audit",
    }
    assert {"accuracy_low", "audit_images", "audit_same", "agreement_low"} <= {*columns}


def test_csv_has_a_number_or_a_text_in_each_cell(tmp_path: Path) -> None:
    """An interval has two columns, and the worst group its name and its accuracy."""
    predictions = [y if i % 10 else (y + 1) % 3 for i, y in enumerate(LABELS)]
    _, answer = store_ended(tmp_path, LABELS, predictions, backbone="ended")
    groups = ["a", "b"] * (len(LABELS) // 2)
    store(tmp_path, LABELS, predictions, backbone="grouped", groups=groups)
    out = bench("leaderboard", "--results", tmp_path, "--format", "csv").out
    cells = {row["backbone"]: row for row in csv.DictReader(out.splitlines())}
    assert not any(cell.startswith(("[", "{")) for row in cells.values() for cell in row.values())
    ends = [float(cells["ended"][f"anytime_{end}"]) for end in ("low", "high")]
    assert tuple(ends) == answer.anytime_ci95
    assert (cells["grouped"]["worst_group"], cells["grouped"]["worst_group_accuracy"]) == (
        "a",
        "0.8",
    )


def test_the_field_s_figures_stand_on_our_boards() -> None:
    """Each says how it was read, and has a dataset and split of ours; none has a rank."""
    published, datasets = ROOT / "results" / "published", load_plugins().datasets
    rows = [row for row in leaderboard(published) if row.kind == "reported"]
    assert len(rows) > 60 and {row.seen for row in rows} == {"first hand", "second hand"}
    for row in rows:
        assert row.split in datasets.get(row.dataset).splits and row.rank is None
        assert row.described == f"{row.source}, read at {row.seen}"
    [row] = [row for row in rows if row.dataset == "ucmerced" and row.cost == 3300]
    names = ("accuracy", "precision_weighted", "recall_weighted", "f1_weighted")
    assert [row.metric(name) for name in names] == [0.5012, 0.5349, 0.5012, 0.4881]
    assert row.n_samples == 421


SETTINGS: list[dict[str, Any]] = [
    {"weighting": "exp:-7"},
    {"weighting": f"sha256 {'a' * 64}"},
    {"guidance": 2.0},
    {"latent": "sample"},
    {"fit": "squash"},
    {"noise": "seed 0 per image"},
]


@pytest.mark.parametrize(
    "changed", matrix(SETTINGS, SETTINGS[1::4]), ids=lambda changed: next(iter(changed))
)
def test_runs_that_differ_in_one_setting_look_different(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    usual = {"loss": "l2", "space": "prediction", "draw_plan": "grid", "noise": "seed 0"}
    store(tmp_path, LABELS, right(0.8), scoring=usual)
    file = {"dataset": "d", "weighting": "mine.csv", "template": ["a {class}", "the {class}"]}
    path = store(tmp_path, LABELS, right(0.9), scoring={**usual, **changed}, config=file)
    [(name, value)] = changed.items()
    said = {"weighting": "mine.csv (aaaaaaaa)", "noise": "per image"}.get(name, str(value))
    said = str(value) if value == "exp:-7" else said
    plain, other = sorted(leaderboard(tmp_path), key=lambda row: row.accuracy)
    assert name not in plain.settings and str(other.settings[name]) == said
    assert other.settings["template"] == "a {class} · the {class}"
    for command in (("leaderboard", tmp_path), ("show", path)):
        assert f"{name}={said}" in bench(*command).out.replace("\n", " "), command


def test_a_classifier_does_not_keep_others_from_sharing_their_settings(tmp_path: Path) -> None:
    usual = {"loss": "l2", "space": "prediction", "draw_plan": "grid"}
    store(tmp_path, LABELS, right(0.8), scoring=usual)
    store(tmp_path, LABELS, right(0.7), scoring=usual, strategy="race")
    once = store(tmp_path, LABELS, right(0.9), backbone="c", draws=1)
    assert "Cost: 1 pass per image," in bench("show", once).out
    above = "prompt=“a class 0” seed=0 dtype=float32 · rows with draws: draws=5 loss=l2"
    above += " space=prediction plan=grid"
    for options, text in (((), "prompt=“a class 0” draws=5"), (("--wide",), above)):
        out = bench("leaderboard", tmp_path, "--dataset", "d", *options).out
        assert text in " ".join(out.split()), out
        assert out.count("loss") == len(options) and out.count("draws=") == 1
        assert [line.split().count("pass") for line in out.splitlines() if " 90.0 (" in line] == [1]


@pytest.mark.parametrize(("draws", "shown"), [(1, False), (2, True)])
def test_one_draw_has_no_reduction(tmp_path: Path, draws: int, shown: bool) -> None:
    scoring = {"noise": "seed 0", "reduction": "mean"}
    store(tmp_path, [0, 1], [0, 1], scoring=scoring, draws=draws)
    [board] = make_boards(leaderboard(tmp_path))
    assert ("reduction=mean" in board.above()) == shown


class RunOf:
    """A run of which some images are right."""

    manifest = SimpleNamespace(items=None)

    def __init__(self, sample_ids: Any, correct: Any) -> None:
        self.decided = SimpleNamespace(sample_ids=sample_ids, correct=correct)

    def decisions(self, top: bool = True) -> Any:
        return self.decided


@given(
    counts=st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=2, max_size=9),
    repeats=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_significant_pairs_are_those_of_the_plain_correction(
    counts: list[list[bool]], repeats: int
) -> None:
    """Pairs that are significant by a bound are not read, which changes no other pair."""
    right = np.repeat(np.array(counts), repeats, axis=1)
    ids = pa.array([str(image) for image in range(right.shape[1])])
    rows: Any = [
        SimpleNamespace(n_samples=len(ids), accuracy=float(run.mean()), run=RunOf(ids, run))
        for run in right
    ]
    wins = right.astype(np.int32) @ (~right).astype(np.int32).T
    first, second = np.triu_indices(len(wins), 1)
    significant = np.zeros(wins.shape, dtype=bool)
    significant[first, second] = holm(mcnemar(wins, wins.T)[first, second]) <= ALPHA
    significant |= significant.T
    wanted = ranks((wins > wins.T) & significant)
    assert _ranks(rows, len(rows)) == wanted
    assert _ranks(rows, len(rows) - 1)[-1] == wanted[-1]  # as if it alone were added


def test_boards_of_one_name_say_why_they_are_apart(tmp_path: Path) -> None:
    put(tmp_path, 0.9, fingerprint="a" * 64)
    put(tmp_path, 0.8, fingerprint="b" * 64)
    ids = [f"t{i}" for i in range(len(LABELS))]
    put(tmp_path, 0.7, fingerprint="c" * 64, sample_ids=ids)
    put(tmp_path, 0.6, fingerprint="d" * 64, n_total=200)
    first, *others = [board.above() for board in make_boards(leaderboard(tmp_path))]
    assert "not the data" not in first
    reasons = (
        "the content of images or labels differs",
        "their images have other ids, such as 's0000' and 't0'",
        "one split has 100 images, the other 200",
    )
    for shared, reason in zip(others, reasons, strict=True):
        assert shared.startswith(f"not the data aaaaaaaa: {reason}")


def test_a_split_with_other_images_than_are_declared_is_marked(tmp_path: Path) -> None:
    put(tmp_path, 0.9, dataset="digits", backbone="a")
    put(tmp_path, 0.8, dataset="digits", backbone="b", n_total=360)
    declared = {row.backbone: row_labels(row).get("declared") for row in leaderboard(tmp_path)}
    assert declared == {"a": ("partial", "split of 100 images, 360 are declared"), "b": None}


def test_a_run_warns_of_a_split_that_lacks_declared_images(tmp_path: Path) -> None:
    make_folder(tmp_path / "copy", "robin/1.png", "wren/2.png")
    (tmp_path / "birds.toml").write_text(
        'name = "birds"\nsource = "copy"\nclasses = ["robin", "wren"]\nsplit = "all"\n'
        "[splits]\nall = 3\n"
    )
    run = ("run", tmp_path / "birds.toml", "--backbone", "random", "--results", tmp_path / "r")
    words = "'birds' has 2 images, but 3 are declared"
    assert words in " ".join(bench(*run).err.split())
    assert words in " ".join(bench(*run, "--dry-run", "--json").json["warnings"])
