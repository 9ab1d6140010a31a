"""Which kinds of scorers a setting is for: refused alone, ignored with a note in a study."""

import json
import shlex
from pathlib import Path
from typing import Any, get_args

import numpy as np
from helpers.command import bench

from bench.contracts.specs import Scorer
from bench.running.command import reproducing_command
from bench.running.parts.declaration import ALL, help_of
from bench.running.parts.settings import SETTINGS, RunConfig, make_config
from bench.running.prepare import SCORER_TEXT, resolve, without_effect
from bench.store.folder import MANIFEST, read_manifest


def test_what_a_kind_of_scorer_does_not_read_follows_from_the_fields() -> None:
    chosen = {"dataset": "digits", "loss": "l1", "views": "flip", "tf32": True, "seed": 3}

    def ignored(backbone: str, **more: Any) -> set[str]:
        settings = {**chosen, "backbone": backbone, **more}
        return {*without_effect(resolve(make_config(settings)))}

    assert ignored("tiny-digits") == set()
    assert ignored("janus-pro-1b") == {"loss", "tf32"}
    assert ignored("janus-pro-1b", views=None) == {"loss", "tf32", "seed"}
    assert ignored("random") == {"loss", "views", "tf32", "seed"}
    assert set(SCORER_TEXT) == set(get_args(Scorer))
    assert help_of(RunConfig.model_fields["offline"]).startswith("Do not use the network")
    shown = " ".join(bench("run", "--help-all", COLUMNS="200").out.split())
    for name, field in RunConfig.model_fields.items():
        if SETTINGS[name].scorers != ALL:
            assert help_of(field) in shown, name


def test_a_study_ignores_what_some_of_its_runs_do_not_read_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "mixed.toml"
    grid = 'datasets = ["digits"]\nlimit = 4\npilot = 0\nstrategies = ["full"]\n'
    grid += '[params]\ndraws = 2\n[[grid]]\nlayout = "contiguous"\nbackbones = '
    file.write_text(grid + '["random", "tiny-digits"]')
    study = ("study", file, "--results", tmp_path / "r", "--json")
    done = bench(*study)
    assert done.code == 0, done.err
    assert "The runs of backbone 'random' ignore layout: --layout is for denoisers." in done.err
    planned = bench(*study, "--dry-run")
    assert "ignore layout" in " ".join(planned.json["warnings"])
    assert planned.json["runs_there"] == 2
    alone = bench("run", "digits", "--backbone", "random", "--strategy", "full", "--limit", 4,
                  "--set", "draws=2", "--results", tmp_path / "alone", "--json")  # fmt: skip
    assert Path(tmp_path / "r" / alone.json["run_id"]).is_dir()  # the same run as without it
    file.write_text(grid + '["random"]')
    refused = bench(*study)
    assert refused.refuses("--layout", "denoisers")
    file.write_text(grid.replace("layout =", "loss = 'l1' #") + '["random", "tiny-digits"]')
    assert "--loss is for denoisers" in bench(*study).err  # another question, and no speed


def test_a_stored_run_of_a_classifier_with_such_a_setting_still_loads(tmp_path: Path) -> None:
    done = bench(
        "run", "digits", "--backbone", "random", "--limit", 2, "--results", tmp_path, "--json"
    )
    folder = Path(done.json["results_dir"])
    stored = json.loads((folder / MANIFEST).read_text())
    stored["config"] |= {"tf32": True, "compile": True, "layout": "contiguous"}
    (folder / MANIFEST).write_text(json.dumps(stored))
    assert read_manifest(folder).config.plain()["tf32"] is True
    assert bench("show", done.json["run_id"], "--results", tmp_path).code == 0


def test_a_seed_is_for_what_draws_at_random(tmp_path: Path) -> None:
    random = ("run", "digits", "--backbone", "random", "--limit", 9, "--results", tmp_path)
    refused = bench(*random, "--seed", 1)
    assert refused.refuses("--seed", "denoisers")
    assert "--set seed=VALUE" in refused.err and not list(tmp_path.iterdir())
    own = bench(*random, "--set", "seed=1", "--json")
    plain = bench(*random, "--json")
    assert own.code == plain.code == 0 and own.json["run_id"] != plain.json["run_id"]

    noise = tmp_path / "noise.npy"
    np.save(noise, np.random.default_rng(0).normal(size=(2, 1, 16, 16)).astype(np.float32))
    given = {"dataset": "digits", "noise": str(noise), "seed": 1, "params": {"draws": 2}}
    for more, has_effect in (
        ({"strategy": "full"}, False),
        ({"strategy": "race"}, True),  # shuffles the draws
        ({"strategy": "full", "latent": "sample"}, True),
        ({"strategy": "full", "noise": None}, True),
    ):
        unused = without_effect(resolve(make_config({**given, **more})))
        assert ("seed" not in unused) == has_effect, more


def test_a_seed_goes_to_the_backbones_that_use_it(tmp_path: Path) -> None:
    both = ("run", "digits", "--backbone", "random,tiny-digits", "--strategy", "full", "--limit", 4)
    made = bench(*both, "--set", "draws=2", "--seed", 1, "--results", tmp_path, "--json")
    assert made.code == 0, made.err
    seeds = {row["backbone"]: row["settings"].get("seed") for row in made.json["rows"]}
    assert seeds == {"random": 0, "tiny-digits": 1}
    assert "The runs of backbone 'random' ignore seed" in made.err
    file = tmp_path / "alone.toml"
    file.write_text('datasets = ["digits"]\nbackbone = "random"\nseed = 1\nlimit = 4\n')
    refused = bench("study", file, "--results", tmp_path)
    assert refused.refuses("--seed", "denoisers")


def test_a_stored_run_of_a_classifier_with_a_seed_is_shown_and_made_again(tmp_path: Path) -> None:
    run = ("run", "digits", "--backbone", "random", "--limit", 9, "--results", tmp_path, "--json")
    folder = Path(bench(*run).json["results_dir"])
    stored = json.loads((folder / MANIFEST).read_text())
    stored["config"]["seed"] = stored["identity"]["seed"] = 1
    (folder / MANIFEST).write_text(json.dumps(stored))
    shown = bench("show", folder, "--json")
    assert shown.code == 0, shown.err
    words = shlex.split(reproducing_command(read_manifest(folder)))
    assert "--seed" not in words
    again = bench(*words[1:], "--results", tmp_path / "again", "--json")
    assert again.code == 0 and again.json["metrics"] == shown.json["metrics"]
