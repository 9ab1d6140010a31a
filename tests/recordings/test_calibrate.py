"""Calibration on recorded errors: what it counts is what replays decide."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.mutations import write_unsealed
from helpers.recorded import N_IMAGES, record, replay
from helpers.refusals import refused
from helpers.stopped import interrupted_after

from bench.contracts.specs import StrategySpec
from bench.recordings.learn import calibrate
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.running.risk import sweep_of
from bench.store.calibrations import CALIBRATION, find_calibrations, read_calibration
from bench.store.folder import read_manifest, read_records

# What a risk chooses among is the same for few settings as for the eleven of the strategy's spec.
FEW = ({"delta": 1e-5, "first": 8}, {"delta": 1e-4, "first": 2})


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = record(tmp_path_factory.mktemp("calibrated"))
    calibrate(path, "race")
    return path


@pytest.mark.long
def test_disagreements_and_costs_are_those_of_the_replays(calibrated: Path, tmp_path: Path) -> None:
    found = read_calibration(calibrated).calibration
    exhaustive = {name: r["prediction"] for name, r in read_records(calibrated).items()}
    assert found.images == N_IMAGES and found.chosen == ["delta", "first"]
    first, last = found.settings[0], found.settings[-1]
    assert first.disagreements == 0 and first.cost > 2 * last.cost
    for setting in (first, last):
        done = replay(calibrated, "race", setting.strategy.params, tmp_path)
        decided = read_records(Path(done["results_dir"]))
        differ = sum(decided[name]["prediction"] != exhaustive[name] for name in exhaustive)
        assert setting.disagreements == differ
        assert setting.cost == done["cost"]["evaluation_equivalents_per_image"]


@pytest.mark.parametrize("param", ["delta=0.1", "first=3"])
def test_what_a_risk_chooses_cannot_be_set(calibrated: Path, param: str) -> None:
    done = bench("learn", calibrated, "calibration", "--strategy", "race", "--set", param)
    assert done.refuses(f"--set {param.partition('=')[0]}"), done.err


@pytest.mark.long
def test_a_second_calibration_leaves_the_first(tmp_path: Path) -> None:
    path, other = record(tmp_path), record(tmp_path, first=N_IMAGES)
    asked = ("replay", other, "--strategy", "race", "--results", tmp_path, "--risk", 0.1, "--json")
    first = calibrate(path, "race", settings=FEW)
    before = bench(*asked).json
    for _ in range(2):
        second = calibrate(path, "race", {"span": 3.0}, settings=FEW)
    assert [each.calibration for each in find_calibrations(tmp_path)] == [first, second]
    after = bench(*asked).json
    assert after["run_id"] == before["run_id"]
    assert bench(*asked, "--set", "span=3").json["strategy"]["params"]["span"] == 3
    again = calibrate(path, "race", settings=FEW)
    assert [each.calibration for each in find_calibrations(tmp_path)] == [again, second]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--strategy", "race", "--risk", 0.1), "split"),
        (("--strategy", "race", "--risk", 0.1, "--set", "delta=0.1"), "--set delta=0.1"),
        (("--strategy", "full", "--risk", 0.1), "full"),
        (("--strategy", "paired-ttest", "--risk", 0.1), "hierarchy, race, screen-race"),
    ],
)
def test_a_replay_refuses_a_risk_that_nothing_supports(
    calibrated: Path, asked: tuple[Any, ...], said: str
) -> None:
    done = bench("replay", calibrated, "--results", calibrated.parent, *asked)
    assert done.refuses(said), done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_damaged_calibration_is_said_to_be_one(calibrated: Path, tmp_path: Path) -> None:
    path = record(tmp_path)
    (path / CALIBRATION).write_text("{}")
    with refused(CALIBRATION):
        read_calibration(path)
    (path / CALIBRATION).write_text(
        (calibrated / CALIBRATION).read_text().replace('"format": 4', '"format": 9')
    )
    with refused(CALIBRATION, "newer"):
        read_calibration(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("level",), 1.0),
        (("level",), 0.0),
        (("settings", 0, "disagreements"), N_IMAGES + 1),
        (("settings", 0, "right"), N_IMAGES + 1),
        (("others", 0, "fit", "centre"), []),
        (("others", 0, "fit", "weights"), [1.0, 2.0, 3.0]),
        (("others", 0, "fit", "spread"), [0.0]),
        (("others", 0, "fit", "right"), 10**6),
        (("others", 0, "fit", "images"), 10**6),
    ],
)
def test_a_calibration_that_contradicts_itself_is_refused(
    calibrated: Path, tmp_path: Path, place: tuple[Any, ...], value: Any
) -> None:
    path = record(tmp_path)
    content = json.loads((calibrated / CALIBRATION).read_text())
    fit = {"images": 9, "right": 5, "unit": 1.0, "features": ["margin"], "intercept": 0.0}
    fit |= {"centre": [0.0], "spread": [1.0], "weights": [1.0]}
    content["others"] = [{**content["settings"][0], "fit": fit}]
    write_unsealed(path / CALIBRATION, content)
    read_calibration(path)
    *parents, last = place
    part = content
    for name in parents:
        part = part[name]
    part[last] = value
    write_unsealed(path / CALIBRATION, content)
    with refused(CALIBRATION) as caught:
        read_calibration(path)
    assert len(str(caught.value).splitlines()) == 1
    # Whoever asks for a risk, or shows the run, hears of it, and no command waits for ever.
    done = bench("replay", path, "--results", tmp_path, "--strategy", "race", "--risk", 0.1)
    assert done.refuses(CALIBRATION), done.err


def test_settings_and_images_can_be_named(tmp_path: Path) -> None:
    path = record(tmp_path)
    names = list(read_records(path))[::3]
    listed = ({"first": 3, "delta": 0.01}, {"first": 2, "delta": 0.3})
    made = calibrate(path, "race", settings=listed, samples=names, of=200)
    assert (made.samples, made.images, made.of) == (names, len(names), 200)
    assert [{n: s.strategy.params[n] for n in made.chosen} for s in made.settings] == [
        {"delta": 0.01, "first": 3},
        {"delta": 0.3, "first": 2},
    ]
    whole = calibrate(path, "race", settings=listed)
    assert whole.of is None and whole.images > made.images
    assert len(list(find_calibrations(tmp_path))) == 2


def test_settings_must_differ_in_the_same_parameters() -> None:
    known: dict[str, Any] = {"name": "x", "target": "a:B", "parameters": {"n": 1, "m": 1}}
    StrategySpec(**known, safest_first=({"n": 3}, {"n": 2}))
    for wrong in (({"n": 3}, {"m": 2}), ({"k": 3},)):
        with refused("safest_first", kind=ValueError):
            StrategySpec(**known, safest_first=wrong)


@pytest.mark.long
def test_a_run_finished_with_a_limit_is_calibrated_on_the_images_of_its_summary(
    tmp_path: Path,
) -> None:
    full = ("--strategy", "full", "--set", "draws=4", "--save-errors", "--results", tmp_path)
    run = ("run", "digits", "--split", "train", *full)
    with interrupted_after(40):
        assert bench(*run, "--limit", 90).code == 130
    path = next(tmp_path.glob("digits-*"))
    ended = bench("learn", path, "calibration")
    assert ended.refuses(path.name)
    done = bench(*run, "--limit", 30, "--json").json
    fair = prepare(make_config({"dataset": "digits", "split": "train", "limit": 30})).sample_ids
    decided = set(read_records(path)) - set(fair)
    assert done["dataset"]["n_samples"] == 30 and len(read_manifest(path).samples) == 90 and decided
    calibrated = bench("learn", path, "calibration", "--strategy", "race", "--json")
    assert f"the 30 images of its summary; {len(decided)} other" in calibrated.err
    found = read_calibration(path).calibration
    assert found.images == 30 and found.samples == fair
    same = {"dataset": "digits", "split": "train", "params": {"draws": "4"}, "limit": 60}
    risky = prepare(make_config({**same, "results": str(tmp_path), "risk": 0.2}))
    sweep = sweep_of(risky)
    assert sweep is not None and sweep.calibration() is None  # it is of the same split
    plain = json.loads((path / CALIBRATION).read_text())
    del plain["samples"]  # as earlier versions wrote it
    write_unsealed(path / CALIBRATION, plain)
    assert read_calibration(path).shared_images(read_manifest(path)) == 90
