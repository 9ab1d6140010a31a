"""A race among the best classes of a stored run: the same decision among fewer classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.given import make_folder
from PIL import Image

from bench.reports.leaderboard.ranking import leaderboard
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.folder import read_records
from bench.store.formats.cells import read_cells
from bench_plugins.backbones.learned import Random

CLASSES = ("ant", "bee", "cow", "dog")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "animals", *(f"{CLASSES[n % 4]}/{n}.png" for n in range(24)))


def run(data: Path, *options: Any) -> Any:
    given = ["--backbone", "random", "--results", data.parent / "runs", "--json", *options]
    return bench("run", data, *given)


def guesses(seed: int, data: Path, name: str) -> Any:
    made = Random(None, device="cpu", dtype="float32", seed=seed)
    texts = [f"a photo of a{'n' * (c == 'ant')} {c}" for c in CLASSES]
    with Image.open(data / name) as image:
        return made.score([image.copy()], texts)[0]


def test_it_decides_among_the_best_classes_of_the_other_run(data: Path) -> None:
    first = run(data).json["run_id"]
    done = run(data, "--set", "seed=1", "--candidates-from", first, "--top", 2)
    said, records = done.json, read_records(Path(done.json["results_dir"]))
    inside = 0
    for name, record in records.items():
        best = np.argsort(-guesses(0, data, name))[:2]
        wanted = best[np.argmax(guesses(1, data, name)[best])]
        assert record["prediction"] == wanted
        assert [entry[2] for entry in record["top"]] == [1, 1, 0, 0]
        assert record["in_candidates"] == (record["label"] in best)
        inside += record["label"] in best
    assert said["metrics"]["candidate_recall"] == inside / 24
    assert said["metrics"]["accuracy"] <= inside / 24
    assert said["cost"]["evaluations_per_image"] == 2
    assert "--results again" not in bench("show", done.json["results_dir"]).out  # without the first
    rows = {row.kind: row for row in leaderboard(data.parent / "runs")}
    assert rows["candidates"].rank is None
    assert rows["candidates"].settings["candidates_from"] == first
    assert rows["candidates"].metric("candidate_recall") == inside / 24


def test_a_denoiser_s_errors_are_those_of_a_run_on_all_classes(data: Path) -> None:
    first = run(data).json["run_id"]
    denoiser = ["--backbone", "tiny-digits", "--strategy", "full", "--set", "draws=3"]
    kept = [*denoiser, "--save-errors", "--limit", 4]
    whole = Path(run(data, *kept).json["results_dir"])
    some = Path(run(data, *kept, "--candidates-from", first, "--top", 3).json["results_dir"])
    for sample_id, record in read_records(some).items():
        among = {entry[0] for entry in record["top"] if entry[2]}
        assert len(among) == 3
        errors, fewer = (read_cells(p / "errors", sample_id, (4, 3)) for p in (whole, some))
        chosen = sorted(among)
        np.testing.assert_allclose(fewer[chosen], errors[chosen], rtol=1e-4)
        assert np.isnan(np.delete(fewer, chosen, axis=0)).all()
        assert record["prediction"] == chosen[int(errors[chosen].mean(axis=1).argmin())]
    refused = bench("replay", some, "--strategy", "race")
    assert refused.refuses("candidates")


def test_where_candidates_are_from_is_in_the_identity(data: Path) -> None:
    one, other = run(data).json["run_id"], run(data, "--set", "seed=1").json["run_id"]
    given = {"dataset": str(data), "backbone": "random", "results": str(data.parent / "runs")}
    asked: list[dict[str, Any]] = [
        {},
        {"candidates_from": one, "top": 3},
        {"candidates_from": one, "top": 2},
        {"candidates_from": other, "top": 2},
    ]
    ids = [prepare(make_config({**given, **more})).manifest.run_id for more in asked]
    assert len(set(ids)) == 4


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ("more", [], "--candidates-from"),
        ("fewer", [], "20 of 24"),
        ("same", ["--top", 4], "--top"),
        ("same", ["--top", 1], "--top"),
        ("nothing", [], "elsewhere-1234"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(
    changed: str, options: list[Any], message: str, data: Path
) -> None:
    first = run(data, *(["--limit", 4] if changed == "fewer" else [])).json["run_id"]
    if changed == "more":
        Image.new("RGB", (8, 8), "white").save(data / "ant" / "99.png")
    source = "elsewhere-1234" if changed == "nothing" else first
    done = run(data, "--set", "seed=1", "--candidates-from", source, "--top", 2, *options)
    assert done.refuses(message), done.err
