"""Runs on a tree of classes: from the file to a replay and a stated risk."""

import json
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.sketch import NAMES

from bench.store.folder import read_records

ROUND = ("zero", "six", "eight", "nine", "three")
RUN = ("run", "digits", "--set", "draws=8", "--limit", "12")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tree") / "tree.csv"
    rows = [f"{name},{'round' if name in ROUND else 'straight'}," for name in NAMES]
    file.write_text(
        "\n".join(["node,parent,words", "round,,zero six", "straight,,one four", *rows])
    )
    return file


@pytest.fixture(scope="module")
def results(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of full, full-hierarchy (recorded) and hierarchy on the same images."""
    results = tmp_path_factory.mktemp("results")
    for strategy in ("full", "full-hierarchy", "hierarchy"):
        save = ("--save-errors",) if strategy == "full-hierarchy" else ()
        nodes = ("--hierarchy", tree) if "hierarchy" in strategy else ()
        options = ("--strategy", strategy, *nodes, "--results", results, *save, "--json")
        done = bench(*RUN, *options)
        assert done.code == 0, done.err
    return results


def run_of(results: Path, strategy: str) -> Path:
    return next(results.glob(f"digits-tiny-digits-{strategy}-????????"))


def predictions(path: Path) -> dict[str, int]:
    return {name: record["prediction"] for name, record in read_records(path).items()}


@pytest.mark.long
def test_inner_nodes_are_asked_and_decide_nothing_in_the_full_sweep(results: Path) -> None:
    full, with_nodes = run_of(results, "full"), run_of(results, "full-hierarchy")
    assert predictions(full) == predictions(with_nodes)
    manifest = json.loads((with_nodes / "manifest.json").read_text())
    assert len(manifest["prompts"]) == 12 and len(manifest["classes"]) == 10
    assert manifest["parents"] == [10 if n in ROUND else 11 for n in NAMES] + [-1, -1]
    assert "parents" not in json.loads((full / "manifest.json").read_text())


@pytest.mark.long
def test_an_audit_of_a_tree_sweeps_its_classes_and_takes_no_decision_for_granted(
    results: Path,
) -> None:
    live, full = run_of(results, "hierarchy"), predictions(run_of(results, "full"))
    audit = bench("results", "audit", live, 12, "--json").json["audit"]
    same = sum(full[name] == prediction for name, prediction in predictions(live).items())
    assert (audit["images"], audit["exact"], audit["same"]) == (12, 0, same)


def test_a_replay_decides_as_the_live_run(results: Path, tmp_path: Path) -> None:
    recorded, live = run_of(results, "full-hierarchy"), run_of(results, "hierarchy")
    done = bench("replay", recorded, "--strategy", "hierarchy", "--results", tmp_path, "--json")
    assert done.code == 0, done.err
    assert predictions(run_of(tmp_path, "hierarchy")) == predictions(live)
    # a strategy that ignores the tree decides among the classes alone
    done = bench("replay", recorded, "--strategy", "uniform", "--results", tmp_path, "--json")
    assert done.code == 0, done.err
    assert set(predictions(run_of(tmp_path, "uniform")).values()) <= set(range(10))


def test_what_lacks_a_tree_is_refused(results: Path, tree: Path, tmp_path: Path) -> None:
    alone = bench(*RUN, "--strategy", "hierarchy")
    assert alone.refuses("--hierarchy FILE")
    probe = bench(
        *RUN, "--strategy", "hierarchy", "--hierarchy", tree, "--backbone", "nearest-mean"
    )
    assert probe.refuses("inner nodes")
    record = (
        *RUN[:4],
        "--limit",
        "2",
        "--strategy",
        "full",
        "--save-errors",
        "--results",
        tmp_path,
    )
    assert bench(*record).code == 0
    replayed = bench("replay", run_of(tmp_path, "full"), "--strategy", "hierarchy")
    assert replayed.refuses("full-hierarchy")
