"""`--risk`, with an earlier calibration and without one: sweep, calibrate, race."""

import json
import shutil
from math import log
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.matrix import matrix
from helpers.mutations import write_unsealed
from helpers.refusals import refused
from helpers.scoring import same, timeless
from helpers.stopped import interrupted_after

from bench import load_dataset, load_run
from bench.running.content import PreparedRun
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.running.risk import PlannedSweep, sweep_of, with_chosen_params
from bench.stats.calibration.risk import most_differing, passing
from bench.store.calibrations import CALIBRATION, calibration_files, read_calibration
from bench.store.folder import read_manifest, read_records
from bench.store.formats.cells import has_part_file

IMAGES, RISK = 60, 0.2
SWEPT, ALLOWED = 12, 0


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 digits."""
    folder = tmp_path_factory.mktemp("data") / "digits60"
    rows = load_dataset("digits")
    names = rows.features["label"].names
    for number, row in enumerate(rows.select(range(IMAGES))):
        place = folder / names[row["label"]]
        place.mkdir(parents=True, exist_ok=True)
        row["image"].save(place / f"{number}.png")
    return folder


def command(images: Path, results: Path, *more: object, risk: float = RISK) -> list[str]:
    fixed = ["--backbone", "tiny-digits", "--template", "a handwritten digit {class}"]
    words = ["run", images, *fixed, "--set", "draws=8", "--risk", risk, "--results", results]
    return [str(word) for word in (*words, *more)]


def sweep_for(images: Path, results: Path, **settings: Any) -> PlannedSweep:
    sweep = sweep_of(prepared(images, results, **settings))
    assert sweep is not None
    return sweep


def prepared(images: Path, results: Path, **settings: Any) -> PreparedRun:
    fixed = {"backbone": "tiny-digits", "template": "a handwritten digit {class}"}
    given = {"dataset": str(images), **fixed, "params": {"draws": "8"}, "risk": RISK}
    return prepare(make_config({**given, "results": str(results), **settings}))


@pytest.fixture(scope="module")
def one_process(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that one command made."""
    done = bench(*command(images, tmp_path_factory.mktemp("one"), "--json"))
    assert done.code == 0, done.err
    assert f"{SWEPT} of the split's {IMAGES} images" in done.err  # before it starts
    return Path(done.json["results_dir"])


def full_sweep(one_process: Path, images: Path, results: Path) -> dict[str, Any]:
    """The records of the sweep, made whole by the ordinary command for it."""
    folder = copied_sweep(one_process, results)
    words = command(images, results, "--strategy", "full", "--json")
    at = words.index("--risk")
    done = bench(*words[:at], *words[at + 2 :])
    assert done.json["run_id"] == folder.name
    return read_records(folder)


def test_one_command_makes_two_runs_and_keeps_the_promise(
    images: Path, one_process: Path, tmp_path: Path
) -> None:
    stated = read_manifest(one_process).identity.calibrated
    assert stated is not None and (stated.of, stated.images) == (IMAGES, SWEPT)
    records = read_records(one_process)
    swept = {name for name, record in records.items() if record.get("decided_by") == "sweep"}
    assert len(records) == IMAGES and len(swept) == SWEPT
    sweep = read_records(one_process.parent / stated.run_id)
    assert swept == sweep.keys()
    full = full_sweep(one_process, images, tmp_path)
    assert full.keys() == records.keys()
    assert all(records[name]["prediction"] == full[name]["prediction"] for name in swept)
    differ = sum(records[name]["prediction"] != full[name]["prediction"] for name in full)
    assert differ <= most_differing(RISK, IMAGES)
    cost = sum(record["evaluations"] for record in records.values())
    assert SWEPT * 80 < cost < IMAGES * 80 / 2
    assert load_run(one_process)["cost"]["evaluations"] == cost


def test_a_complete_run_says_its_risk_and_how_to_repeat_it(images: Path, one_process: Path) -> None:
    results = one_process.parent
    shown = bench(*command(images, results, "--json")).json
    assert shown["resumed"] == "complete" and shown["risk"]["of"] == IMAGES
    again = bench("show", one_process).out
    assert "repeat it in another folder" in again and "--risk 0.2" in again
    assert "--strategy" not in again


def test_swept_images_are_a_draw_that_no_limit_changes(
    images: Path, one_process: Path, tmp_path: Path
) -> None:
    whole = sweep_for(images, tmp_path)
    assert whole.calibration() is None and len(whole.samples) == SWEPT
    assert whole.samples == sweep_for(images, tmp_path, limit=10).samples
    assert whole.samples != sweep_for(images, tmp_path, seed=1).samples
    limited = bench(*command(images, tmp_path, "--limit", 10, "--json")).json
    assert limited["run_id"] == one_process.name and limited["dataset"]["n_samples"] == 10
    made = bench(*command(images, tmp_path, "--json")).json
    assert made["run_id"] == one_process.name
    assert same(timeless(tmp_path / made["run_id"]), timeless(one_process))


@pytest.mark.parametrize("after", matrix([9, SWEPT + 12], [9]))
def test_a_stop_in_either_part_changes_nothing(
    after: int, images: Path, one_process: Path, tmp_path: Path
) -> None:
    with interrupted_after(after):
        assert bench(*command(images, tmp_path)).code == 130
    stored = [len(read_records(path)) for path in tmp_path.iterdir() if path.is_dir()]
    assert sorted(stored) == ([after] if after < SWEPT else [SWEPT, after])
    done = bench(*command(images, tmp_path, "--json"))
    assert done.code == 0 and done.json["run_id"] == one_process.name
    assert same(timeless(tmp_path / one_process.name), timeless(one_process))


@pytest.mark.long
def test_shards_are_swept_merged_calibrated_and_raced(
    images: Path, one_process: Path, tmp_path: Path
) -> None:
    def made(*more: object, code: int = 0) -> Any:
        done = bench(*command(images, tmp_path, *more))
        assert done.code == code, done.err
        return done

    refused = made("--shard", "1/2", code=2)
    assert refused.err.splitlines()[-1].startswith("Error: --risk 0.2 is not calibrated yet")
    assert not list(tmp_path.iterdir())
    swept = [json.loads(made("--sweep-only", "--shard", f"{n}/2", "--json").out) for n in (1, 2)]
    assert sum(part["dataset"]["n_samples"] for part in swept) == SWEPT
    assert "is not calibrated yet" in made("--shard", "1/2", code=2).err
    merge = ("results", "merge", swept[0]["run_id"], "--results", tmp_path)
    assert bench(*merge).code == 0
    made("--shard", "1/2", code=2)
    made("--sweep-only")
    parts = [json.loads(made("--shard", f"{n}/2", "--json").out) for n in (1, 2)]
    assert {part["run_id"] for part in parts} == {one_process.name}
    assert bench("results", "merge", one_process.name, "--results", tmp_path).code == 0
    merged = tmp_path / one_process.name
    assert same(timeless(merged), timeless(one_process))
    assert "12 of the split's 60 images" in " ".join(bench("show", merged).out.split())


def test_errors_of_both_parts_are_kept(images: Path, one_process: Path, tmp_path: Path) -> None:
    copied_sweep(one_process, tmp_path)
    done = bench(*command(images, tmp_path, "--save-errors", "--json"))
    run = Path(done.json["results_dir"])
    assert all(has_part_file(run / "errors", name) for name in read_records(run))
    assert same(timeless(run), timeless(one_process))


def copied_sweep(run: Path, place: Path) -> Path:
    """Copy the sweep that came before a run; return its folder."""
    sweep = read_manifest(run).identity.calibrated
    assert sweep is not None
    return Path(shutil.copytree(run.parent / sweep.run_id, place / sweep.run_id))


@pytest.mark.parametrize(
    ("otherwise", "name"), matrix([("full", "full"), ("schedule", "adaptive")], [("full", "full")])
)
def test_where_no_setting_passes_the_users_choice_decides(
    otherwise: str, name: str, images: Path, one_process: Path, tmp_path: Path
) -> None:
    """A file is edited as if every setting had differed on more images than are allowed."""
    file = copied_sweep(one_process, tmp_path) / CALIBRATION
    calibration = json.loads(file.read_text())
    assert calibration["images"] == SWEPT and calibration["of"] == IMAGES
    for setting in calibration["settings"]:
        setting["disagreements"] = ALLOWED + 1
    write_unsealed(file, calibration)
    ask = command(images, tmp_path, "--risk-else", otherwise)
    made = bench(*ask, "--json").json
    assert made["strategy"]["name"] == name and made["decided_by"]["sweep"] == SWEPT
    assert f"decide {ALLOWED + 1} of them otherwise. So no race keeps" in " ".join(
        bench(*ask).out.split()
    )
    run = Path(made["results_dir"])
    rest = [r for r in read_records(run).values() if "decided_by" not in r]
    assert {r["evaluations"] for r in rest} == {80 if name == "full" else 45}
    assert ("--risk-else schedule" in bench("show", run).out) == (otherwise == "schedule")


def test_edited_records_of_the_sweep_are_not_believed(
    images: Path, one_process: Path, tmp_path: Path
) -> None:
    """They differ from the sweep's errors, which the calibration is made again from."""
    folder = copied_sweep(one_process, tmp_path)
    records = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    flipped = [{**r, "prediction": (r["prediction"] + 1) % 10} for r in records]
    (folder / "samples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in flipped))
    done = bench(*command(images, tmp_path))
    assert done.refuses("--fresh") and "Left out" in done.err
    assert [path.name for path in tmp_path.glob("*/samples.jsonl")] == ["samples.jsonl"]


def test_failed_images_of_the_sweep_count_as_decided_otherwise(
    images: Path, one_process: Path, tmp_path: Path
) -> None:
    folder = copied_sweep(one_process, tmp_path)
    journal = folder / "samples.jsonl"
    first, *others = journal.read_text().splitlines(keepends=True)
    failed = {**json.loads(first), "prediction": None, "top": [], "error": "unreadable"}
    journal.write_text(json.dumps(failed) + "\n" + "".join(others))
    assert sweep_for(images, tmp_path).calibration() is None  # it is of other images
    file = folder / CALIBRATION
    calibration = json.loads(file.read_text())
    calibration["samples"].remove(failed["sample_id"])
    write_unsealed(file, {**calibration, "images": SWEPT - 1})
    tested = sweep_for(images, tmp_path).calibration()
    assert tested is not None and tested.images == SWEPT
    assert tested.settings[0].disagreements == 1
    found = with_chosen_params(prepared(images, tmp_path))
    assert found.manifest.identity.calibrated is not None
    assert found.manifest.identity.calibrated.disagreements == 1  # more than are allowed
    assert found.manifest.strategy.name == "full"


def test_a_plan_says_both_parts_before_anything_is_scored(images: Path, tmp_path: Path) -> None:
    plan = bench(*command(images, tmp_path, "--dry-run", "--json")).json
    risk = plan["risk"]
    assert (risk["swept"], risk["allowed"], risk["rest"]) == (SWEPT, ALLOWED, IMAGES - SWEPT)
    assert risk["sweep_cost"] == SWEPT * 80 and risk["full_cost"] == IMAGES * 80
    assert risk["rest_cost_at_least"] == 48 * 20 < risk["rest_cost"] < risk["rest_cost_at_most"]
    assert plan["run_id"] is None and "delta" not in plan["params"]
    small = bench(*command(images, tmp_path, "--dry-run", "--json", "--limit", 10)).json
    assert small["risk"]["swept"] == SWEPT and "does not pay" in small["warnings"][-1]
    dear = bench(*command(images, tmp_path, "--dry-run", risk=0.1))
    assert "MB" in dear.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"params": {"draws": "2"}}, "--strategy full"),
        ({"candidates_from": "RUN", "top": 2}, "RUN"),
        ({"strategy": "full"}, "full"),
    ],
)
def test_what_cannot_be_promised_is_refused(
    settings: dict[str, Any], said: str, images: Path, tmp_path: Path
) -> None:
    with refused(said):
        with_chosen_params(prepared(images, tmp_path, **settings))


def test_a_sweep_alone_is_for_a_risk(images: Path, tmp_path: Path) -> None:
    words = command(images, tmp_path, "--sweep-only")
    at = words.index("--risk")
    done = bench(*words[:at], *words[at + 2 :])
    assert done.refuses("--sweep-only", "--risk")


def test_the_sweep_is_calibrated_with_the_settings_of_the_run(one_process: Path) -> None:
    sweep = read_manifest(one_process).identity.calibrated
    assert sweep is not None
    folder = one_process.parent / sweep.run_id
    [name] = calibration_files(folder)
    calibration = read_calibration(folder, name).calibration
    params = [setting.strategy.params for setting in calibration.settings]
    assert params[0]["first"] == 8 and len(params) == 11
    assert len({json.dumps({**p, "first": 0, "delta": 0}) for p in params}) == 1
    differ = [setting.disagreements or 0 for setting in calibration.settings]
    kept = [calibration.settings[place] for place in passing(differ, SWEPT, RISK, of=IMAGES)]
    cheapest = min(kept, key=lambda setting: setting.cost)
    assert read_manifest(one_process).strategy.params == cheapest.strategy.params


DRAWS = ("--set", "draws=8")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recording of 60 training digits, calibrated."""
    folder = tmp_path_factory.mktemp("results")
    given = ("--split", "train", "--limit", 60, "--strategy", "full", *DRAWS, "--save-errors")
    made = bench("run", "digits", *given, "--results", folder, "--json").json
    assert bench("learn", made["run_id"], "calibration", "--results", folder).code == 0
    return folder


def described(results: Path, **settings: Any) -> Any:
    given = {"dataset": "digits", "params": {"draws": "8"}, "results": str(results)}
    return with_chosen_params(prepare(make_config({**given, **settings}))).manifest


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"risk": 0.01}, "needs at least 299 without a disagreement"),
        (
            {"risk": 0.05, "params": {"draws": "8", "ceiling": "published"}},
            "ceiling=published differs",
        ),
        ({"risk": 0.05, "params": {"draws": "8", "delta": "0.1"}}, "leave --set delta"),
        ({"risk": 0.05, "params": {"draws": "8", "span": "3"}}, "span=3.0 differs from span=0.0"),
        ({"risk": 0.05, "params": {"draws": "8", "growth": "3"}}, "growth must be 8"),
        ({"risk": 0.05, "strategy": "full"}, "no settings to choose from; strategies that"),
        ({"risk": 0.05, "backbone": "random"}, "--risk is for denoisers and likelihoods"),
        ({"risk": 1.5}, "--risk"),
    ],
)
def test_what_keeps_no_risk_is_refused(settings: dict[str, Any], said: str, results: Path) -> None:
    with refused(said):
        described(results, **settings)


def test_an_earlier_calibration_goes_before_a_sweep(results: Path) -> None:
    """Of the same question, and of another split; else images of the run itself are swept."""

    def sweep(**settings: Any) -> Any:
        fixed = {"dataset": "digits", "risk": 0.05, "params": {"draws": "8"}}
        return sweep_of(prepare(make_config({**fixed, "results": str(results), **settings})))

    assert sweep() is None
    for settings in ({"split": "train"}, {"seed": 1}, {"params": {"draws": "9"}}):
        planned = sweep(**settings)
        assert planned.calibration() is None
        assert planned.plan.split == (1437 if "split" in settings else 360)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A file of a test digit."""
    path = tmp_path / "digit.png"
    load_dataset("digits")[0]["image"].save(path)
    return path


def test_a_picture_is_classified_with_the_parameters_of_a_risk(
    results: Path, picture: Path
) -> None:
    asked = ("classify", picture, "--dataset", "digits", *DRAWS, "--results", results)
    chosen = bench(*asked, "--risk", 0.05)
    assert chosen.code == 0, chosen.err


def test_a_picture_has_the_probability_that_other_images_tell(
    results: Path, picture: Path, tmp_path: Path
) -> None:
    """Digits are too easy to fit one, so a fit is written by hand: 3/4, whatever the margin is."""
    given = {"images": 60, "right": 45, "unit": 0.01, "features": ["margin"]}
    fit = {**given, "centre": [0.0], "spread": [1.0], "weights": [0.0], "intercept": log(3)}
    copy = tmp_path / "results"
    shutil.copytree(results, copy)
    for path in copy.glob("*/calibration.json"):
        found = json.loads(path.read_text())
        for setting in (*found["settings"], *found["others"]):
            setting["fit"] = fit
        write_unsealed(path, found)
    asked = ("classify", picture, *DRAWS, "--results", copy)
    shown = bench(*asked, "--dataset", "digits").out
    assert "probability 0.750" in shown and "fitted on 60 other images (digits/train" in shown
    other = bench(*asked, "--dataset", "digits", "--seed", 1, "--json").json[0]
    assert other["probability"] is None  # nothing was calibrated with that noise


def test_a_risk_wants_the_images_of_a_dataset(results: Path, picture: Path) -> None:
    asked = ("classify", picture, "--classes", "one,two", "--risk", 0.05, "--results", results)
    done = bench(*asked)
    assert done.refuses("--classes", "--risk")
