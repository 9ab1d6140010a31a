"""What was wrong in stored results is said wherever a run that it touches is shown."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.refusals import refused
from helpers.runs import a_manifest, store

import bench as toolkit
from bench.contracts.specs import ErratumSpec
from bench.discovery.loading import load_plugins
from bench.reports.leaderboard.published import MARKED, mark, recompute, validate
from bench.reports.leaderboard.ranking import leaderboard
from bench.store.errata import own_list, touched
from bench.store.runs import read_run

LABELS, WHAT = [0, 1, 2] * 20, "Its draws were swapped."
WRONG = [label if place % 10 else (label + 1) % 3 for place, label in enumerate(LABELS)]
Declare = Callable[..., None]


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Register an erratum, as a plugin does, for the time of a test."""

    def register(name: str = "swapped", **fields: Any) -> None:
        usual: dict[str, Any] = {"what": WHAT, "effect": "numbers", "mended": "b 2"}
        usual["where"] = ({"backbone.name": "b", "identity.backbone.version": {"below": 2}},)
        spec = ErratumSpec(name=name, **{**usual, **fields})
        monkeypatch.setitem(load_plugins().errata._specs, name, spec)

    return register


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return store(tmp_path / "results", LABELS, WRONG, groups=["a", "b"] * 30)


def of_surface(surface: str, run: Path, out: Path) -> str:
    """Return what people or programs read of a run on a surface."""
    results = ("--results", run.parent)
    if surface == "report":
        assert bench("report", run, "--out", out).code == 0
        return out.read_text("utf-8")
    if surface == "python":
        return repr([touch.sentence for touch in toolkit.load_run(run).errata])
    commands: dict[str, tuple[Any, ...]] = {
        "show": ("show", run),
        "show as JSON": ("show", run, "--json"),
        "runs as JSON": ("runs", *results, "--json"),
        "board": ("leaderboard", *results, "--wide"),
        "board as JSON": ("leaderboard", *results, "--json"),
        "board in Markdown": ("leaderboard", *results, "--format", "markdown"),
        "board in LaTeX": ("leaderboard", *results, "--format", "latex"),
        "board in HTML": ("leaderboard", *results, "--format", "html"),
        "model index": ("export", run, "--format", "model-index"),
        "LaTeX": ("export", run, "--format", "latex"),
    }
    done = bench(*commands[surface])
    assert done.code == 0
    return done.out


@pytest.mark.parametrize(
    "surface",
    [
        *("show", "show as JSON", "runs as JSON", "board", "board as JSON", "board in Markdown"),
        "board in LaTeX",
        *("board in HTML", "report", "python", "model index", "LaTeX"),
    ],
)
def test_every_surface_has_the_sentence(
    surface: str, run: Path, declare: Declare, tmp_path: Path
) -> None:
    declare()
    assert WHAT in re.sub(r"\s+", " ", of_surface(surface, run, tmp_path / "page.html"))


def test_what_a_run_prints_as_json_has_its_errata(declare: Declare, tmp_path: Path) -> None:
    of_run = ("run", "digits", "--backbone", "nearest-mean", "--limit", 20, "--json")
    command = (*of_run, "--results", tmp_path)
    assert "errata" not in bench(*command).json
    declare(where=({"backbone.name": "nearest-mean"},))
    [touch] = bench(*command).json["errata"]
    assert touch["what"] == WHAT and touch["state"] == "affected"


@pytest.mark.parametrize("certain", [True, False])
def test_a_board_marks_what_is_and_what_may_be_wrong(
    certain: bool, run: Path, declare: Declare, tmp_path: Path
) -> None:
    assert "wrong" not in of_surface("board in Markdown", run, tmp_path)
    declare(certain=certain)
    shown = of_surface("board in Markdown", run, tmp_path)
    assert "wrong" in shown and ("| wrong? |" in shown) != certain
    assert ("Possibly wrong" in shown) != certain


@pytest.mark.parametrize(
    ("fields", "ranked"),
    [
        ({}, False),
        ({"effect": "withdrawn"}, False),
        ({"certain": False}, True),
        *(({"effect": effect}, True) for effect in ("promise", "data", "words")),
    ],
)
def test_a_run_that_is_wrong_has_no_rank_and_moves_none(
    fields: dict[str, Any], ranked: bool, run: Path, declare: Declare
) -> None:
    store(run.parent, LABELS, [0] * len(LABELS), backbone="other")
    declare(**fields)
    rows = {row.backbone: row for row in leaderboard(run.parent)}
    assert (rows["b"].rank is not None, rows["other"].rank) == (ranked, (2, 2) if ranked else None)
    table = bench("leaderboard", "--results", run.parent, "--format", "markdown").out
    assert ("~~90.0" in table) != ranked


def test_a_published_run_that_an_erratum_touches_is_marked_or_refused(
    run: Path, declare: Declare
) -> None:
    published = run.parent
    known = validate(published)
    declare()
    [problem] = [text for text in validate(published) if text not in known]
    assert run.name in problem and "swapped" in problem
    assert json.loads(mark(published).read_text("utf-8")) == {run.name: ["swapped"]}
    assert (published / MARKED).is_file() and validate(published) == known


def test_a_promise_is_cleared_by_computing_the_summary_again(run: Path, declare: Declare) -> None:
    """Its values are then those of the records, and it is said that they were wrong once."""
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    right = summary["metrics"]["worst_group"]
    del summary["seal"], summary["format"]
    summary["metrics"]["worst_group"] = {**right, "lowest_ci95": [0.5, 0.5]}
    (run / "summary.json").write_text(json.dumps(summary), "utf-8")
    declare("narrow", effect="promise", where=({"summary.metrics.worst_group": {"present": True}},))
    declare("cost", effect="promise", where=({"backbone.name": "b"},))

    assert recompute(run.parent) == [run / "summary.json"] and not recompute(run.parent)
    stored = read_run(run)
    assert stored.summary is not None and stored.summary.metrics.worst_group is not None
    assert stored.summary.metrics.worst_group.plain() == right
    states = {t.name: t.state for t in touched(stored.manifest, stored.summary)}
    assert states == {"narrow": "cleared", "cost": "affected"}


@pytest.mark.parametrize(
    ("condition", "touches"),
    [
        ("b", True),
        ("c", False),
        (["a", "b"], True),
        ({"below": "c"}, True),
        ({"below": "b"}, False),
        ({"below": 3}, False),  # of another type
        ({"other": ["a"]}, True),
        ({"other": ["b"]}, False),
        ({"present": True}, True),
        ({"present": False}, False),
    ],
)
def test_conditions(condition: object, touches: bool, declare: Declare) -> None:
    declare(where=({"identity.backbone.name": "nobody"}, {"backbone.name": condition}))
    declare("absent", where=({"backbone.no.such": condition},))
    names = [touch.name for touch in touched(a_manifest(["x"]))]
    assert ("swapped" in names) == touches
    assert ("absent" in names) == (condition == {"present": False})


@pytest.mark.parametrize("where", [(), ({},), ({"a": {"above": 1}},), ({"a": {}},)])
def test_conditions_that_say_nothing_are_refused(where: Any, declare: Declare) -> None:
    with refused("where" if not any(where) else "a", kind=ValueError):
        declare(where=where)


def test_the_toolkit_s_own_list() -> None:
    """A run of this version is touched by nothing, and each entry touches a run."""
    version, specs = own_list()
    assert version >= 1 and len({spec.name for spec in specs}) == len(specs)
    assert not touched(a_manifest(["x"]))
    old = a_manifest(["x"], seed=1, backbone="flux-dev", created="2026-11-25T00:00:00+00:00")
    half = old.identity.backbone.model_copy(update={"dtype": "float16"})
    old = old.model_copy(update={"identity": old.identity.model_copy(update={"backbone": half})})
    assert {touch.name for touch in touched(old)} == {"times-of-flux", "seed-without-draws"}
