"""`--holdout`: a part of the images is scored, the same with every backbone; the rest is fitted."""

import random
from collections import Counter
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.given import make_folder
from hypothesis import given
from hypothesis import strategies as st

import bench as toolkit
from bench.errors import UserError
from bench.inputs.subsets import hold_out
from bench.running.parts.settings import make_config
from bench.running.prepare import prepare
from bench.store.runs import read_run

NAMES = ("cat", "dog", "elm")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_folder(tmp_path / "photos", *(f"{c}/{n}.png" for c in NAMES for n in range(8)))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 9)), min_size=2, max_size=80),
    st.floats(0.05, 0.95),
)
def test_groups_are_whole_and_classes_near_their_share(
    rows: list[tuple[int, int | None]], share: float
) -> None:
    ids = [f"image {n}" for n in range(len(rows))]
    labels, groups = [label for label, _ in rows], [None if g is None else f"g{g}" for _, g in rows]
    held = hold_out(ids, labels, share, groups)
    for group in {*groups} - {None}:
        members = {i for i, g in zip(ids, groups, strict=True) if g == group}
        assert members <= held or not members & held
    order = random.Random(0).sample(range(len(ids)), len(ids))
    turned = [ids[n] for n in order], [labels[n] for n in order]
    assert hold_out(*turned, share, [groups[n] for n in order]) == held
    alone = hold_out(ids, labels, share)
    for label, n in Counter(labels).items():
        count = sum(i in alone for i, own in zip(ids, labels, strict=True) if own == label)
        assert n == 1 or 1 <= count < n
        assert n == 1 or abs(count - share * n) <= 0.5 + 1e-9 or count in (1, n - 1)


def test_every_backbone_is_scored_on_the_same_images_and_learns_from_the_others(
    photos: Path,
) -> None:
    runs = [
        prepare(make_config({"dataset": "./photos", "backbone": name, "holdout": 0.25}))
        for name in ("random", "majority", "linear-probe")
    ]
    first, fitted = runs[0].split, runs[2].content.learns_from
    assert fitted is not None and Counter(first.labels) == {0: 2, 1: 2, 2: 2}
    assert {run.split.fingerprint for run in runs} == {first.fingerprint}
    assert {run.split.split for run in runs} == {"all-held-0.25"}
    assert runs[2].manifest.backbone.trained_on == "photos/all-rest-0.25"
    assert not {*first.hash_images()} & {*fitted.hash_images()}
    assert not {*first.sample_ids} & {*fitted.sample_ids}


def test_no_group_and_no_copy_of_an_image_is_on_both_sides(photos: Path) -> None:
    """A picture that occurs twice is not learned from if it is scored."""
    rows = toolkit.load_dataset("./photos")
    copied = rows.add_column("group", [f"burst {n // 2}" for n in range(len(rows))])
    (photos / "cat" / "copy.png").write_bytes((photos / "cat" / "0.png").read_bytes())
    held = prepare(make_config({"dataset": "./photos", "backbone": "nearest-mean", "holdout": 0.5}))
    assert held.content.learns_from is not None
    assert not {*held.split.hash_images()} & {*held.content.learns_from.hash_images()}
    result = toolkit.run(copied, backbone="nearest-mean", holdout=0.5)
    grouped = dict(zip(copied["sample_id"], copied["group"], strict=True))
    scored = {grouped[sample] for sample in read_run(Path(result.results_dir)).manifest.samples}
    assert len(scored) == 6


@pytest.mark.parametrize("value", ["0", "1", "1.5", "-1", "nan", "inf", "", "half"])
def test_a_share_lies_between_none_and_all(photos: Path, value: str) -> None:
    done = bench("run", photos, "--backbone", "random", "--holdout", value)
    assert done.code == 2 and "--holdout: must be" in done.err


def test_what_cannot_be_held_out_is_refused_with_the_reason(photos: Path) -> None:
    def refused(**settings: object) -> str:
        with pytest.raises(UserError) as error:
            prepare(make_config({"backbone": "linear-probe", "holdout": 0.5, **settings}))
        return str(error.value)

    assert "has a split 'train' to learn from, beside 'test'" in refused(dataset="digits")
    assert "exclude each other" in refused(dataset="./photos", fit_split="all")
    make_folder(photos, "fir/1.png")
    assert "'fir' has 1 image." in refused(dataset="./photos")
    assert "--holdout 0.5 scores one half" in refused(dataset="./photos", holdout=None)


def test_limits_shards_studies_and_resumed_runs_keep_the_halves(photos: Path) -> None:
    words = ("run", "./photos", "--backbone", "nearest-mean", "--holdout", "0.5")
    whole = bench(*words, "--results", "whole")
    assert whole.code == 0, whole.err
    (path,) = [p for p in Path("whole").iterdir() if p.is_dir()]
    for part in ("1/2", "2/2"):
        assert bench(*words, "--results", "parts", "--shard", part).code == 0
    parts = sorted(Path("parts").iterdir())
    assert bench("results", "merge", *parts, "--results", "parts").code == 0
    assert bench(*words, "--results", "few", "--limit", "6").code == 0
    assert bench(*words, "--results", "few").code == 0
    Path("s.toml").write_text(
        'datasets = ["./photos"]\nbackbones = ["nearest-mean", "random"]\nholdout = 0.5\n'
    )
    assert bench("study", "s.toml", "--results", "study").code == 0
    own = {*read_run(path).manifest.samples}
    for other in ("parts", "few", "study"):
        assert {*read_run(Path(other) / path.name).manifest.samples} == own
    assert bench("report", path, "--out", "report.html").code == 0
    assert "no picture" not in Path("report.html").read_text().split("</style>")[1]
