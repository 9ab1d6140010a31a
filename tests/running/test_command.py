"""The command that a message shows is one that the command line takes."""

from __future__ import annotations

import shlex
from pathlib import Path

from helpers.command import bench
from helpers.places import ROOT
from helpers.recorded import record, replay
from helpers.runs import a_manifest, store

from bench.running.command import reproducing_command
from bench.store.folder import read_manifest


def test_what_learn_and_replay_suggest_is_accepted(tmp_path: Path) -> None:
    config = {"dataset": "digits", "backbone": "tiny-digits", "limit": 8}
    run = store(tmp_path, [0, 1], [0, 1], config=config)
    for asked, strategy in (
        (["replay", run, "--strategy", "race"], "full"),
        (["learn", run, "reach"], "full-linearised"),
    ):
        done = bench(*asked)
        assert done.code == 2
        _, *command = shlex.split(done.err.rpartition("with: ")[2])
        assert command[command.index("--strategy") + 1] == strategy
        planned = bench(*command, "--results", tmp_path / "new", "--dry-run")
        assert planned.code == 0, planned.err


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    done = bench("show", "nothing", "--results", tmp_path / "my results")
    _, listing, _ = done.err.split("`")
    assert done.code == 2 and bench(*shlex.split(listing)[1:]).code == 0


def test_a_replay_names_its_own_weighting() -> None:
    scoring = {"loss": "l2", "weighting": "snr"}
    changed = a_manifest(["1"], scoring=scoring, replayed_from="x")
    assert reproducing_command(changed) == "bench replay x --strategy full --weighting snr"
    config = {"dataset": "d", "weighting": "snr"}
    same = a_manifest(["1"], scoring=scoring, replayed_from="x", config=config)
    assert reproducing_command(same) == "bench replay x --strategy full"


def test_the_command_makes_the_same_run_again(tmp_path: Path) -> None:
    made = bench(
        *("run", "digits", "--backbone", "random", "--set", "seed=3", "--limit", 8),
        *("--template", "a {class}", "--template", "the {class}", "--template-rule", "mean"),
        *("--results", tmp_path, "--json"),
    ).json
    recorded = record(tmp_path)
    replayed = replay(recorded, "race", {"delta": "0.1"}, tmp_path, limit=6)
    for run_id in (made["run_id"], replayed["run_id"]):
        words = shlex.split(reproducing_command(read_manifest(tmp_path / run_id)))
        again = bench(*words[1:], "--results", tmp_path, "--json")
        assert again.code == 0, again.err
        assert (again.json["run_id"], again.json["resumed"]) == (run_id, "complete")


def test_a_run_is_made_again_with_what_its_backbone_set() -> None:
    """`--strategy` alone would leave the parameters out that the backbone sets for its own."""
    run = next((ROOT / "results" / "published").glob("ucmerced-tiny-landuse-race-efd785f2"))
    words = shlex.split(reproducing_command(read_manifest(run)))
    assert "first=2" in words and "draws=40" in words
