"""Items, a likelihood and views, written from the documentation alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import Finished, bench
from helpers.matrix import matrix
from helpers.places import ROOT
from helpers.plugins import load_hooks
from helpers.scoring import same, timeless

from bench.contracts.specs import DatasetSpec
from bench.discovery.loading import Plugins, load_plugins
from bench.engine.images import view_of_draw
from bench.inputs.data import DataSource, load_split
from bench.inputs.pixels import decode
from bench.store.folder import read_records
from bench.testing import ItemsContract, LikelihoodContract

PACKAGE = ROOT / "tests" / "third_party_items" / "src"


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[Plugins]:
    """Register the package for the tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PACKAGE))
        import bench_items  # type: ignore[import-not-found]

        plugins = Plugins()
        hooks = ("register_datasets", "register_backbones", "register_views")
        loaded = load_hooks(plugins, "bench_items", *(getattr(bench_items, h) for h in hooks))
        assert loaded.error is None
        own = load_plugins()
        for name in ("datasets", "backbones", "views"):
            for spec in getattr(plugins, name):
                patch.setitem(getattr(own, name)._specs, spec.name, spec)
        yield plugins


def made(module: str, name: str) -> Any:
    return getattr(__import__(f"bench_items.{module}", fromlist=[name]), name)


class TestHalves(ItemsContract):
    @pytest.fixture
    def spec(self) -> DatasetSpec:
        return load_plugins().datasets.get("halves")


class TestPixelColours(LikelihoodContract):
    texts = ("red left of blue", "blue left of red", "a green one that is left of a red")

    def make(self) -> Any:
        return made("pixels", "PixelColours")(None, device="cpu", dtype="float32")


def test_each_is_short() -> None:
    for file in PACKAGE.rglob("*.py"):
        assert len(file.read_text().splitlines()) < 60


def run(results: Path, strategy: str, *options: object) -> Finished:
    more = ("--set", "draws=20") if strategy != "adaptive" else ()
    arguments = ("run", "halves", "--strategy", strategy, *more, "--results", results, "--json")
    return bench(*arguments, "--batch-size", 7, *options)


def by_hand(reduction: str, seed: int = 0, draws: int = 20) -> dict[str, tuple[Any, int]]:
    """Return of each item its texts' scores, computed cell by cell, and its label."""
    model = made("pixels", "PixelColours")(None, device="cpu", dtype="float32")
    split = load_split(DataSource(load_plugins().datasets.get("halves")))
    found = {}
    for name, label, row in zip(split.sample_ids, split.labels, split.rows, strict=True):
        image, numbers = decode(row["image"]), [seed * 100_000 + k for k in range(draws)]
        e = np.array([[model.error(image, text, k) for k in numbers] for text in row["texts"]])
        scores = {
            "mean": e.mean(axis=1),
            "mean-softmax": -(np.exp(-e) / np.exp(-e).sum(axis=0)).mean(axis=1),
            "logsumexp": -np.log(np.exp(-e).mean(axis=1)),
        }
        found[name] = scores[reduction], label
    return found


@pytest.mark.parametrize(
    "reduction", matrix(["mean", "mean-softmax", "logsumexp"], ["mean-softmax"])
)
def test_scores_are_those_computed_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reduction: str
) -> None:
    monkeypatch.setattr(made("pixels", "PixelColours"), "reduction", reduction)
    done = run(tmp_path, "full", "--save-errors", "--seed", 3)
    assert done.code == 0, done.err
    folder = Path(done.json["results_dir"])
    records, wanted = read_records(folder), by_hand(reduction, seed=3)
    assert records.keys() == wanted.keys()
    for name, (scores, _) in wanted.items():
        assert records[name]["prediction"] == scores.argmin()
        for text, score, draws in records[name]["top"]:
            assert score == pytest.approx(scores[text], rel=1e-5) and draws == 20
        assert records[name]["margin"] == pytest.approx(abs(scores[0] - scores[1]), rel=1e-4)
    again = bench("replay", folder, "--strategy", "full", "--results", tmp_path / "b", "--json")
    assert same(timeless(Path(again.json["results_dir"])), timeless(folder))
    raced = run(tmp_path, "race")
    replayed = bench("replay", folder, "--strategy", "race", "--results", tmp_path / "b")
    if reduction == "mean":
        assert raced.code == replayed.code == 0
        assert raced.json["cost"]["evaluations"] < done.json["cost"]["evaluations"]
    else:
        assert raced.code == replayed.code == 2
        assert f"combines draws by {reduction}" in raced.err
        assert "compares means" in replayed.err


def test_strategies_views_and_refusals(tmp_path: Path) -> None:
    adaptive = run(tmp_path, "adaptive", "--set", "samples=5,20", "--set", "keep=1,1")
    assert adaptive.code == 0, adaptive.err
    viewed = run(tmp_path, "full", "--views", "corners:0.7")
    assert viewed.code == 0, viewed.err
    model = made("pixels", "PixelColours")(None, device="cpu", dtype="float32")
    corners, chosen = made("corners", "Corners")(0.7), view_of_draw(20, 4)
    split = load_split(DataSource(load_plugins().datasets.get("halves")))
    records = read_records(Path(viewed.json["results_dir"]))
    for name, row in zip(split.sample_ids, split.rows, strict=True):
        pictures = corners.of(decode(row["image"]), 0)
        errors = [[model.error(pictures[chosen[k]], t, k) for k in range(20)] for t in row["texts"]]
        for text, score, _ in records[name]["top"]:
            assert score == pytest.approx(np.mean(errors[text]), rel=1e-5)
    for options, why in (
        (("--loss", "l1"), "--loss"),
        (("--levels", "0-5"), "--levels"),
        (("--views", "posterior"), "posterior()"),
    ):
        refused = run(tmp_path, "full", *options)
        assert refused.refuses(why)
    plan = bench("run", "halves", "--strategy", "full", "--dry-run", "--json").json
    assert (plan["draws"], plan["evaluations_per_image"]) == (20, 40)


@pytest.mark.long
def test_a_text_alone(tmp_path: Path) -> None:
    """The shortest text wins whatever the image shows; the first of equal ones is no answer."""
    blind = run(tmp_path, "race", "--control", "text-only")
    assert blind.code == 0, blind.err
    split = load_split(DataSource(load_plugins().datasets.get("halves")))
    records = read_records(Path(blind.json["results_dir"]))
    for name, row in zip(split.sample_ids, split.rows, strict=True):
        lengths = [len(text) for text in row["texts"]]
        assert lengths[records[name]["prediction"]] == min(lengths)
        assert records[name]["top"][0][1] == min(lengths)
    refused = bench("run", "digits", "--control", "text-only", "--results", tmp_path)
    assert refused.refuses("--control", "prior()")
    assert "backbone 'tiny-digits' does not have" in refused.err
