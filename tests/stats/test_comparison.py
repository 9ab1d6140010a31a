"""Two runs compared: by hand, in words, and nothing that does not compare."""

from math import comb
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.refusals import refused
from helpers.runs import a_manifest, store

from bench.reports.comparisons import compare
from bench.stats.inference.paired import difference_interval
from bench.stats.metrics.comparison import differing, run_settings
from bench.store.formats.documents import Manifest
from bench.store.runs import read_run

LABELS = [i % 3 for i in range(60)]


def wrong(*places: int) -> list[int | None]:
    return [(y + 1) % 3 if i in places else y for i, y in enumerate(LABELS)]


def test_by_hand(tmp_path: Path) -> None:
    scoring = {"loss": "l2"}
    a = store(tmp_path, LABELS, wrong(*range(10)), scoring=scoring)
    b = store(tmp_path, LABELS, wrong(8, 9, 10), seed=1, scoring=scoring)
    found: Any = compare(a, b).plain()
    assert (found["wins"], found["losses"], found["ties"]) == (8, 1, 51)
    difference = found["difference"]
    assert difference["n"] == 60 and difference["estimate"] == pytest.approx(7 / 60)
    assert difference["p"] == pytest.approx(2 * sum(comb(9, k) for k in (0, 1)) / 2**9)
    assert found["significant"] and not found["regression"]
    assert found["agreement"] == pytest.approx(51 / 60)
    assert found["cost_ratio"] == 1 and found["differences"] == {"seed": [0, 1]}
    assert found["warnings"] == []
    first = found["per_class"][0]
    assert (first["difference"]["n"], first["wins"], first["losses"]) == (20, 3, 0)


def test_the_interval_contains_0_where_the_test_does_not_reject(tmp_path: Path) -> None:
    a, b = store(tmp_path, LABELS, wrong(*range(5))), store(tmp_path, LABELS, LABELS, seed=1)
    better, worse = compare(a, b), compare(b, a)
    assert (better.wins, better.losses) == (5, 0) and better.difference.p == 2 / 2**5
    assert difference_interval(5, 0, 60)[0] > 0  # Tango's alone would exclude it
    assert better.difference.interval == (0.0, float(difference_interval(5, 0, 60)[1]))
    assert worse.difference.interval[1] == 0.0 and not better.significant


def test_costs_of_different_kinds_and_seconds_of_different_days_are_not_divided(
    tmp_path: Path,
) -> None:
    scoring = {"loss": "l2", "space": "prediction", "noise": "seed 0"}
    swept = store(tmp_path, LABELS, wrong(3), scoring=scoring)
    timed = compare(swept, store(tmp_path, LABELS, LABELS, scoring=scoring, seed=1))
    assert timed.cost_ratio == 1 and timed.seconds_ratio and timed.not_divided == {}
    probe = store(tmp_path, LABELS, LABELS, backbone="probe", draws=1)
    found = compare(swept, probe)
    assert found.cost_ratio is None and found.seconds_ratio
    shown = bench("compare", swept, probe).out
    assert "one of evaluations, one of passes of a classifier: not divided" in shown
    other = store(tmp_path, LABELS, LABELS, backbone="other", draws=1)
    assert compare(probe, other).not_divided == {"cost": "one pass per image each"}
    later: dict[str, Any] = {"created": "2026-01-02T00:00:00+00:00", "scoring": scoring, "seed": 2}
    aged = compare(swept, store(tmp_path, LABELS, LABELS, **later))
    assert aged.cost_ratio == 1 and aged.seconds_ratio is None
    assert aged.not_divided == {"seconds": "measured on different days: not divided"}
    elsewhere: dict[str, Any] = {"environment": {"cpus": 7}, "scoring": scoring, "seed": 3}
    moved = compare(swept, store(tmp_path, LABELS, LABELS, **elsewhere))
    assert "machines" in moved.not_divided["seconds"] and moved.seconds_ratio is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "e"}, ("'d'", "'e'")),
        ({"version": 2}, ("version",)),
        ({"split": "train"}, ("'test'", "'train'")),
        ({"n_classes": 4}, ("'class 3'",)),
        ({"sample_ids": [f"t{i}" for i in range(60)]}, ("sample",)),
        (
            {"sample_ids": [f"t{i}" for i in range(60)], "fingerprint": "0" * 64},
            ("'s0000'", "'t0'"),
        ),
    ],
)
def test_what_does_not_compare_is_refused(
    tmp_path: Path, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    a = store(tmp_path, LABELS, LABELS)
    b = store(tmp_path, LABELS, LABELS, **{"seed": 1, **change})
    with refused(*words):
        compare(a, b)


def test_other_labels_are_refused(tmp_path: Path) -> None:
    a = store(tmp_path, LABELS, LABELS)
    b = store(tmp_path, LABELS[1:] + LABELS[:1], LABELS, seed=1)
    with refused("labels"):
        compare(a, b)


def test_what_compares_with_care_is_warned_of(tmp_path: Path) -> None:
    a = store(tmp_path, LABELS[:40], LABELS[:40], n_total=60, trained_on="d/train")
    b = store(tmp_path, LABELS, [None, *LABELS[1:]], seed=1, fingerprint="0" * 64)
    found: Any = compare(a, b).plain()
    said = " ".join(found["warnings"])
    assert found["difference"]["n"] == 40
    for words in (
        "fingerprint ffffffff in A, 00000000 in B",
        "20 of",
        "subset: 40 of the split's 60",
        "A is trained on d/train, B is zero-shot",
        "1 image failed",
    ):
        assert words in said


def test_a_run_that_is_not_complete_is_named(tmp_path: Path) -> None:
    ids = [f"s{number}" for number in range(4)]
    a = store(tmp_path, LABELS[:4], LABELS[:4], sample_ids=ids)
    b = store(tmp_path, LABELS[:3], LABELS[:3], sample_ids=ids[:3], seed=1, complete=False)
    (b / "manifest.json").write_text(
        read_run(b).manifest.model_copy(update={"samples": ids}).model_dump_json()
    )
    warnings = " ".join(compare(a, b).warnings)
    assert f"{b.name} is incomplete: 3 of 4 images are decided." in warnings
    assert f"{a.name} is incomplete" not in warnings


def test_what_differs_is_said_in_words(tmp_path: Path) -> None:
    scoring = {"loss": "l2", "space": "prediction", "noise": "seed 0"}
    other = {"loss": "l1", "space": "prediction", "noise": "seed 7"}
    a = store(tmp_path, LABELS, LABELS, scoring=scoring, draws=5)
    prompts = [[f"a photo of class {c}", c] for c in range(3)]
    changes: dict[str, Any] = {"scoring": other, "draws": 9, "prompts": prompts}
    changes["prompts_hash"] = "q" * 64
    b = store(
        tmp_path, LABELS, LABELS, {"linearisations": 1, "equivalents": 100.0}, **changes, seed=7
    )
    found = compare(a, b)
    assert found.differences == {
        "prompt": ["a class 0", "a photo of class 0"],
        "loss": ["l2", "l1"],
        "draws": [5, 9],
        "seed": [0, 7],
    }
    assert found.cost_ratio == 2  # 50 evaluations in each, and a linearised draw in B
    shown = bench("compare", a, b)
    assert "a photo of class 0" in shown.out and "qqqq" not in shown.out


def test_whatever_enters_an_identity_is_among_the_settings() -> None:
    """Weights of one place with another content, or a part that this version does not know."""
    plain: Any = a_manifest(["a"]).plain()
    changes: list[dict[str, Any]] = [
        {"backbone": {**plain["identity"]["backbone"], "weights": "1" * 64}},
        {"backbone": {**plain["identity"]["backbone"], "weights": "2" * 64}},
        {"template_rule": "mean"},
        {"of a newer version": 3},
        {"replayed": {"run_id": "x", "identity": "e" * 64}},
        {},
    ]
    known = [
        run_settings(
            Manifest.model_validate({**plain, "identity": {**plain["identity"], **change}})
        )
        for change in changes
    ]
    assert len({repr(one) for one in differing(known)}) == len(changes)


@pytest.mark.parametrize("trained_on", ["unknown", "undeclared"])
def test_two_that_do_not_say_are_not_alike(tmp_path: Path, trained_on: str) -> None:
    runs = [store(tmp_path, LABELS, LABELS, backbone=n, trained_on=trained_on) for n in "ab"]
    assert any("different training data" in w for w in compare(runs[0], runs[1]).warnings)


def test_the_command_and_its_gate(tmp_path: Path) -> None:
    a = store(tmp_path, LABELS, LABELS)
    b = store(tmp_path, LABELS, wrong(*range(12)), seed=1)
    shown = bench("compare", a.name, b.name, "--results", tmp_path)
    assert shown.code == 0 and "McNemar" in shown.out and "class 1" in shown.out
    gated = bench("compare", a, b, "--gate", "--json")
    assert gated.code == 4 and gated.json["regression"] and "worse" in gated.err
    assert bench("compare", b, a, "--gate").code == 0
    assert bench("compare", a, b.name + "x").code == 2


def test_another_metric_is_tested_and_gated(tmp_path: Path) -> None:
    a = store(tmp_path, LABELS, LABELS)
    b = store(tmp_path, LABELS, wrong(*range(12)), seed=1)
    found = compare(a, b, "f1_macro")
    assert found.tested is not None
    assert found.tested.b == pytest.approx(read_run(b).require_summary().metrics.metric("f1_macro"))
    assert found.tested.difference.estimate == pytest.approx(found.tested.b - 1.0)
    assert found.regression
    assert found.tested.difference.interval[1] < 0 and (found.tested.difference.p or 0) < 0.01
    shown = bench("compare", a, b, "--metric", "f1_weighted")
    assert "weighted F1, B − A" in shown.out and "permutation test" in shown.out
    gated = bench("compare", a, b, "--gate", "--metric", "balanced_accuracy", "--json")
    assert gated.code == 4 and gated.json["tested"]["metric"] == "balanced_accuracy"
    assert "tested" not in bench("compare", a, b, "--json").json


def test_one_after_another_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    a = store(tmp_path, LABELS, wrong(*range(30)))
    b = store(tmp_path, LABELS, wrong(30, 31), seed=1)
    answer = compare(a, b, sequential=True).sequential
    assert answer is not None and answer.verdict == "better" and answer.n < 60
    opposite = compare(b, a, sequential=True).sequential
    assert opposite is not None and (opposite.verdict, opposite.n) == ("worse", answer.n)
    ends, others = answer.difference_anytime_ci95, opposite.difference_anytime_ci95
    assert ends and others == pytest.approx([-end for end in ends[::-1]])
    assert "sequential" not in compare(a, b).plain()
    shown = bench("compare", a, b, "--sequential")
    assert f"in random order {answer.sentence}" in " ".join(shown.out.split())


def test_a_fitted_model_asks_with_no_prompts(tmp_path: Path) -> None:
    results = ("--limit", 4, "--results", tmp_path)
    runs = [
        bench("run", "digits", *words, *results, "--json").json["results_dir"]
        for words in (
            ("--backbone", "nearest-mean"),
            ("--backbone", "random", "--template", "the {class}"),
            ("--backbone", "random"),
        )
    ]
    fitted, other, plain = map(Path, runs)
    texts = "Their prompts differ."
    assert texts not in compare(fitted, other).warnings
    assert texts in compare(plain, other).warnings
