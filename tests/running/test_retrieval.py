"""Retrieval over items: recalls of both directions, and shortlists that a second run reranks.

Everything is computed again from a matrix of errors, images × texts, made in numpy alone.
"""

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from helpers.captions import (
    PULL,
    Painter,
    caption,
    errors_by_hand,
    one_image,
    paint,
    run,
    things,
    two_images,
    with_images,
)
from helpers.command import bench
from helpers.given import Given
from helpers.given import stored as as_stored
from helpers.matrix import matrix
from helpers.mutations import write_unsealed
from helpers.scoring import same, timeless
from helpers.stopped import interrupted_after
from numpy.typing import NDArray
from PIL import Image

from bench.contracts.dataset import Item, Sample, Shortlisted
from bench.contracts.decision import Decided
from bench.contracts.executor import ExecutorSpec
from bench.contracts.metric import Metric, MetricInput
from bench.contracts.metric_spec import MetricSpec
from bench.contracts.strategy import Outcome
from bench.discovery.loading import load_plugins
from bench.errors import UserError
from bench.inputs.pixels import decode
from bench.reports.leaderboard.ranking import compare_pairs, leaderboard
from bench.stats.metrics.metric_values import measure
from bench.store.folder import read_records
from bench.store.formats.cells import read_cells, read_draws
from bench.store.formats.decisions import as_decisions
from bench.store.formats.journal import make_record, rank_of
from bench_plugins.metrics.recalls import RecallAt1

pytestmark = pytest.mark.usefixtures("captions")
N, DRAWS, FIRST = 14, 6, 2
Floats = NDArray[np.float64]


@cache
def gallery() -> tuple[list[str], list[Any]]:
    """Return different captions, and of each a noisy picture that another one shines through."""
    texts = list(dict.fromkeys(caption(*pair) for pair in things(40, seed=3)))[:N]
    painted, rng = np.array([paint(text) for text in texts], float), np.random.default_rng(0)
    own = rng.uniform(0.47, 0.53, (N, 1, 1, 1))
    mixed = own * painted + (1 - own) * painted[::-1] + rng.uniform(-20, 20, painted.shape)
    pixels = mixed.clip(0, 255).astype(np.uint8)
    return texts, [as_stored(Image.fromarray(picture)) for picture in pixels]


def right_texts(number: int) -> list[int]:
    """Return the captions that count as right: every third image has two."""
    return sorted({number, (number - 1) % N} if number % 3 == 0 else {number})


@cache
def texts_of_images() -> datasets.Dataset:
    texts, images = gallery()
    labels = [right_texts(number) for number in range(N)]
    ids = [f"image-{number:02}" for number in range(N)]
    return with_images({"sample_id": ids, "image": images, "texts": [texts] * N, "label": labels})


@cache
def images_of_texts() -> datasets.Dataset:
    texts, images = gallery()
    ids, alone = [f"text-{number:02}" for number in range(N)], [[text] for text in texts]
    rows: dict[str, list[Any]] = {"sample_id": ids}
    rows |= {"images": [images] * N, "texts": alone, "label": list(range(N))}
    return with_images(rows)


@cache
def errors(draws: int, null: bool) -> Floats:
    """Return mean errors, float64 [images, texts], less those of the null prompt if asked for."""
    texts, images = gallery()
    means = []
    for image in images:
        *own, of_null = errors_by_hand(decode(image), [*texts, None], draws).mean(axis=1)
        means.append(np.array(own) - of_null * null)
    return np.array(means)


def rank(scores: Floats, right: list[int], first: Floats | None = None, top: int = N) -> int:
    """Return the place of the best right answer, after a shortlist of `top` by `first` scores."""
    order = np.argsort(scores if first is None else first, kind="stable")
    best = order[:top]
    reranked = [*best[np.argsort(scores[best], kind="stable")], *order[top:]]
    place = min(reranked.index(answer) for answer in right)
    return 1 + sum(answer not in right for answer in reranked[:place])


def question(direction: str) -> tuple[Any, Floats, Floats, list[list[int]], tuple[str, ...]]:
    """Return data, scores of the cheap and of the dear run by query, right answers, options."""
    if direction == "texts":
        right = [right_texts(number) for number in range(N)]
        return texts_of_images(), errors(FIRST, False), errors(DRAWS, False), right, ()
    scores = errors(FIRST, True).T, errors(DRAWS, True).T
    return images_of_texts(), *scores, [[n] for n in range(N)], ("--subtract-null",)


@pytest.mark.parametrize("direction", ["texts", "images"])
def test_recalls_and_reranked_shortlists_are_those_computed_by_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, direction: str
) -> None:
    rows, cheap, dear, right, options = question(direction)
    monkeypatch.setattr(Given, "rows", rows)
    first = run(tmp_path, "full", *options, draws=FIRST)
    top = 4
    more = ("--candidates-from", first.json["run_id"], "--top", top, "--save-errors")
    second = run(tmp_path, "full", *options, *more, draws=DRAWS)
    ranks = [rank(row, own) for row, own in zip(cheap, right, strict=True)]
    again = [rank(d, own, c, top) for d, c, own in zip(dear, cheap, right, strict=True)]
    for done, wanted in ((first, ranks), (second, again)):
        records = read_records(Path(done.json["results_dir"]))
        assert [records[name]["rank"] for name in rows["sample_id"]] == wanted
        for k in (1, 5, 10):
            share = np.mean(np.array(wanted) <= k)
            assert done.json["metrics"][f"recall_at_{k}"] == pytest.approx(share, abs=1e-5)
        assert done.json["metrics"]["accuracy"] == done.json["metrics"]["recall_at_1"]
    for number, name in enumerate(rows["sample_id"]):
        best, rest = np.split(np.argsort(cheap[number], kind="stable"), [top])
        stored, reranked = records[name]["top"], best[np.argsort(dear[number][best])]
        assert [entry[0] for entry in stored] == [*reranked, *rest][:10]
        for answer, score, draws in stored[:top]:
            assert (score, draws) == (pytest.approx(dear[number][answer], abs=1e-5), DRAWS)
        assert records[name]["in_candidates"] == (not set(best).isdisjoint(right[number]))
    ceiling = second.json["metrics"]["candidate_recall"]
    assert second.json["metrics"]["recall_at_1"] <= ceiling <= second.json["metrics"]["recall_at_5"]
    shown = bench("show", second.json["run_id"], "--results", tmp_path)
    assert f"candidate recall, % {100 * ceiling:.1f}; the limit" in " ".join(shown.out.split())
    assert f"Which of its {direction} fits" in shown.out


def test_queries_about_the_same_image_are_resampled_together() -> None:
    """Five equal captions of an image count as one: the interval is that of the images alone.

    The captions of an image are hit or missed together. An interval that takes them for independent
    covers the true share in far less than 95 %, and one over images as often as it says.
    """
    spec, metric = load_plugins().metrics.get("recall_at_1"), RecallAt1()
    names = tuple(f"image {number + 1}" for number in range(60))

    def interval(hits: Any, clusters: Any) -> tuple[float, float]:
        data = MetricInput(names, hits * 0, hits * 0, ranks=2 - hits, clusters=clusters)
        ends = measure(spec, metric, data, {}).ci95
        assert ends is not None
        return ends

    rng, images, captions, share = np.random.default_rng(0), 60, 5, 0.3
    clusters = np.repeat(np.arange(images), captions)
    covered = {"images": 0, "captions": 0}
    for _ in range(40):
        hits = np.repeat((rng.random(images) < share).astype(np.int64), captions)
        for over, used in (("images", clusters), ("captions", None)):
            low, high = interval(hits, used)
            covered[over] += low <= share <= high
    assert covered["images"] >= 35 and covered["captions"] < 30
    alone = interval(hits[::captions], None)
    assert interval(hits, clusters) == pytest.approx(alone, abs=0.01)


def test_queries_about_the_same_image_do_not_make_an_accuracy_more_certain(tmp_path: Path) -> None:
    """Three equal queries of each image: p is that of one of each, by McNemar's exact test."""
    queries = texts_of_images()
    copies = [queries.map(lambda row, n=n: {"sample_id": row["sample_id"] + n}) for n in "ab"]
    results = []
    for rows in (queries, datasets.concatenate_datasets([queries, *copies])):
        Given.rows = rows
        place = ("--results", tmp_path / f"{len(rows)}", "--json")
        ours = run(place[1], "full", draws=FIRST).json
        guess = bench("run", "captions", "--backbone", "random", *place).json
        test = bench("compare", ours["run_id"], guess["run_id"], *place).json["difference"]
        assert compare_pairs(leaderboard(place[1]), 2)[1][0, 1] == pytest.approx(test["p"])
        results.append((ours["metrics"], test))
    (alone, test), (of_three, clustered) = results
    assert "about_images" not in alone and of_three["about_images"] == len(queries)
    assert of_three["accuracy"] == alone["accuracy"] and 0 < alone["accuracy"] < 1
    assert of_three["accuracy_ci95"] == pytest.approx(alone["accuracy_ci95"], abs=0.03)
    assert (test["method"], clustered["method"]) == ("mcnemar", "permutation")
    assert test["p"] < 0.3 and clustered["p"] == pytest.approx(test["p"], rel=0.05)


def intervals(document: Any, path: str = "") -> dict[str, Any]:
    """Return every interval in a document, by its path."""
    if isinstance(document, list):
        document = dict(enumerate(document))
    if not isinstance(document, dict):
        return {}
    found: dict[str, Any] = {}
    for name, value in document.items():
        at = f"{path}.{name}"
        own = str(name) == "interval" or str(name).endswith("ci95")
        found |= {at: value} if own and value is not None else intervals(value, at)
    return found


def test_no_interval_is_narrower_for_copies_of_queries(tmp_path: Path) -> None:
    """In show, its statistics, its groups and compare: three copies tell what one of each does.

    A single group has the interval of the whole, and half of the items in each of two groups share
    their images with nobody of the other one.
    """
    queries = texts_of_images()
    groups = [["all"] * N, ["even", "odd"] * (N // 2)]
    for of_row in groups:
        once = queries.add_column("group", of_row)
        copies = [once.map(lambda row, n=n: {"sample_id": row["sample_id"] + n}) for n in "ab"]
        seen = []
        for rows in (once, datasets.concatenate_datasets([once, *copies])):
            Given.rows = rows
            place = ("--results", tmp_path / f"{len({*of_row})}-{len(rows)}", "--json")
            ours = run(place[1], "full", draws=FIRST).json["run_id"]
            guess = bench("run", "captions", "--backbone", "random", *place).json["run_id"]
            shown = bench("show", ours, "--statistics", *place).json
            compared = bench("compare", ours, guess, *place).json
            seen.append({**intervals(shown), **intervals(compared, "compared")})
        alone, of_three = seen
        assert alone.keys() == of_three.keys() and "compared.agreement_ci95" in alone
        assert sum("group" in path for path in alone) >= 2
        for path, (low, high) in alone.items():
            widths = high - low, of_three[path][1] - of_three[path][0]
            assert widths[1] == pytest.approx(widths[0], abs=0.06), path
            assert widths[1] > 0.9 * widths[0], path
        if len({*of_row}) == 1:
            whole = of_three[".metrics.accuracy_ci95"]
            same = [path for path in of_three if "group" in path]
            assert all(of_three[path] == whole for path in same)


def blind_to(part: str) -> Any:
    """Return a `denoise` that does not see what a text says, or not its right half."""

    def denoise(self: Painter, x_t: Any, t: Any, conditioning: Any) -> Any:
        Painter.passes.append(len(x_t))
        seen = conditioning.clone()
        seen[..., 0 if part == "all" else 9 :] = 0
        return PULL * seen + (1 - PULL) * x_t

    return denoise


RECALLS = {k: f"recall_at_{k}" for k in (1, 5, 10)}


@pytest.mark.parametrize("part", ["all", "right"])
@pytest.mark.parametrize("strategy", ["race", "adaptive", "halving", "paired-ttest", "uniform"])
def test_a_scorer_that_cannot_tell_answers_apart_gains_nothing_by_a_strategy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strategy: str, part: str
) -> None:
    """A hit is one in whatever order the answers are that were eliminated, and ties are no hits.

    There is no recall unless that is known of every item. That of a constant scorer is 0. Computed
    again from the errors that were kept.
    """
    Given.rows = texts_of_images()
    monkeypatch.setattr(Painter, "denoise", blind_to(part))
    own = ("--set", "budget=2") if strategy == "halving" else ()
    done = run(tmp_path, strategy, *own, "--save-errors").json
    folder = Path(done["results_dir"])
    table = read_draws(folder)
    assert table is not None
    draws = len(table.levels)
    for k, name in RECALLS.items():
        hits: list[bool | None] = []
        for record in read_records(folder).values():
            right = right_texts(int(record["sample_id"][-2:]))
            errors = read_cells(folder / "errors", record["sample_id"], (N, draws)).astype(float)
            taken = np.isfinite(errors)
            most = taken.sum(axis=1) == taken.sum(axis=1)[record["top"][0][0]]

            def ahead(a: int, b: int, errors: Floats = errors, most: Any = most) -> bool:
                both = np.isfinite(errors[a]) & np.isfinite(errors[b])
                if most[a] == most[b]:
                    return bool(errors[a][both].mean() <= errors[b][both].mean() + 1e-12)
                return bool(most[a] or (errors[a][both] == errors[b][both]).all())

            known = [a for a in right if most[a]]
            places = [1 + sum(ahead(w, a) for w in range(N) if w not in right) for a in known]
            hit = min(places, default=N) <= k
            hits.append(None if not known and most.sum() < k else hit)
        value = done["metrics"][name]
        if value is not None:
            assert None not in hits and value == pytest.approx(np.mean(np.array(hits, float)))
            assert part != "all" or value == 0
        else:
            command = ("show", done["run_id"], "--metric", name, "--results", tmp_path)
            assert None in hits and bench(*command).refuses("eliminated")
    assert done["metrics"]["recall_at_1"] is not None


@pytest.mark.parametrize("part", ["all", "right", "nothing"])
def test_from_the_length_of_a_shortlist_on_a_recall_is_that_of_the_first_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str
) -> None:
    """Also with ties: an answer that is on the list for its place in the gallery is no hit."""
    Given.rows = texts_of_images()
    with monkeypatch.context() as patched:
        if part != "nothing":
            patched.setattr(Painter, "denoise", blind_to(part))
        first = run(tmp_path, "full", draws=FIRST).json
    for top in (4, 5, 7):
        for strategy in ("full", "race"):
            more = ("--candidates-from", first["run_id"], "--top", top)
            second = run(tmp_path, strategy, *more, draws=DRAWS).json
            for k in (5, 10):
                if k >= top:
                    name = RECALLS[k]
                    assert second["metrics"][name] == pytest.approx(first["metrics"][name])
            assert second["metrics"]["recall_at_1"] <= second["metrics"]["candidate_recall"]
    ours, name = second["run_id"], RECALLS[10]
    compared = bench("compare", first["run_id"], ours, "--metric", name, "--results", tmp_path)
    assert compared.code == 0 and "p = 1:" in compared.out


def test_an_item_with_no_more_answers_than_places_is_no_hit(tmp_path: Path) -> None:
    """Of nineteen items of two texts and one of six, no recall@5 exists, and recall@1 does."""
    texts, images = gallery()
    rows = {"sample_id": [f"i{n:02}" for n in range(N)], "image": images}
    rows["texts"] = [texts[:6] if n == 0 else [texts[n], texts[n - 1]] for n in range(N)]
    Given.rows = with_images({**rows, "label": [0] * N})
    done = run(tmp_path, "full", draws=FIRST).json
    assert done["metrics"]["recall_at_5"] is None
    assert done["metrics"]["recall_at_1"] == done["metrics"]["accuracy"]
    place = ("--results", tmp_path)
    assert "recall@5, recall@10 none" in " ".join(bench("show", done["run_id"], *place).out.split())
    for command in (("show", done["run_id"]), ("compare", done["run_id"], done["run_id"])):
        assert bench(*command, "--metric", "recall_at_5", *place).refuses("2 answers")


def test_that_images_are_ranked_without_the_null_is_stored_with_the_run(tmp_path: Path) -> None:
    Given.rows = images_of_texts()
    done = run(tmp_path, "full", draws=FIRST).json
    again = run(tmp_path, "full", draws=FIRST).json  # it is complete
    shown = bench("show", done["run_id"], "--results", tmp_path, "--json").json
    for document in (done, again, shown):
        assert any("--subtract-null" in warning for warning in document["warnings"])
    fair = run(tmp_path, "full", "--subtract-null", draws=FIRST).json
    assert "--subtract-null" not in str(fair.get("warnings"))


def test_items_have_no_metrics_of_classes(tmp_path: Path) -> None:
    """Which text comes first says nothing: whatever there is, is the same in any other order.

    The same answers, with each item's texts turned by another number of places.
    """
    texts, queries = gallery()[0], texts_of_images()
    by_order = []
    for step in (0, 5):
        turned = [np.roll(np.arange(N), step * n).tolist() for n in range(N)]
        rows = {name: queries[name] for name in ("sample_id", "image")}
        rows |= {"texts": [[texts[t] for t in order] for order in turned]}
        rows |= {"label": [[o.index(t) for t in right_texts(n)] for n, o in enumerate(turned)]}
        Given.rows = with_images(rows)
        place = ("--results", tmp_path / str(step))
        done = run(place[1], "full", draws=FIRST)
        name = done.json["run_id"]
        shown = bench("show", name, "--statistics", "--json", *place).json
        assert shown["statistics"].pop("per_class") == shown["statistics"].pop("confusion") == []
        by_order.append((done.json["metrics"], shown["metrics"], shown["statistics"]))
        told = bench("show", name, "--statistics", *place).out
        assert "F1" not in told and "balanced" not in told and "onfusion" not in told
        report = bench("report", name, *place, "--out", tmp_path / f"{step}.html")
        assert report.code == 0
        assert "Confusion matrix" not in (tmp_path / f"{step}.html").read_text()
        for metric in ("f1_macro", "balanced_accuracy", "precision_weighted"):
            assert done.json["metrics"][metric] is None
            for command in (("show", name), ("compare", name, name)):
                assert bench(*command, "--metric", metric, *place).refuses("over classes")
        until = ("--until", "balanced accuracy within 0.2")
        assert run(tmp_path / "until", "full", *until, draws=FIRST).refuses("--until")
    assert by_order[0] == by_order[1]


class FirstText(Metric):
    """Share of items for which the first text is chosen."""

    def value(self, data: MetricInput) -> float:
        return float((data.predictions == 0).mean())


def test_a_metric_of_others_that_depends_on_the_order_of_texts_is_refused() -> None:
    spec = MetricSpec(name="first-text", target="x:y", range=(0, 1))
    names, places = tuple(f"text {n}" for n in range(7)), np.arange(40) % 7
    data = MetricInput(names, places, places, items=True)
    with pytest.raises(UserError, match="order"):
        measure(spec, FirstText(), data, {})
    assert measure(spec, FirstText(), replace(data, items=False), {}).value == 0.15


def test_an_early_summary_of_items_is_read_without_what_was_wrong_in_it(tmp_path: Path) -> None:
    Given.rows = texts_of_images()
    done = run(tmp_path, "full", draws=FIRST).json
    file = Path(done["results_dir"], "summary.json")
    early = json.loads(file.read_text())
    early["metrics"] |= {"f1_macro": 0.2, "balanced_accuracy": 0.3}
    write_unsealed(file, early)
    place = ("--results", tmp_path, "--json")
    again = run(tmp_path, "full", draws=FIRST).json
    for metrics in (bench("show", done["run_id"], *place).json["metrics"], again["metrics"]):
        assert metrics["f1_macro"] is None and metrics["balanced_accuracy"] is None
        assert metrics["accuracy"] == done["metrics"]["accuracy"]


def test_a_failed_item_and_one_without_a_rank_are_about_their_images() -> None:
    """Records name the image of every item, so that failures are no images of their own."""
    item = Item((None,), tuple(range(5)))
    failed = [
        Decided(Sample(str(n), 0, {}, item, cluster=str(n % 2)), error="no") for n in range(4)
    ]
    scores = np.arange(5.0)
    outcome = Outcome(np.arange(5), scores, np.full(5, 3), 0.5, 0.1, 0.9)
    unranked = Shortlisted((1, 2))  # of a first run without ranks
    sample = Sample("4", 0, {}, item, shortlisted=unranked, cluster="1")
    ranked = np.array([1, 2, 0, 3, 4])
    rest = Decided(sample, replace(outcome, ranking=ranked))
    records = [make_record(decided, 1.0) for decided in (*failed, rest)]
    assert [record["cluster"] for record in records] == ["0", "1", "0", "1", "1"]
    decided = as_decisions(records)
    assert decided.clusters is not None and decided.clusters.tolist() == [0, 1, 0, 1, 1]
    for record in records[:2]:  # as early ones
        del record["cluster"]
    of_early = as_decisions(records).clusters
    assert of_early is not None and of_early.tolist() == [0, 0, 1, 2, 2]


def test_a_tie_is_behind_the_wrong_answers_that_it_ties_with() -> None:
    scores = np.array([1.0, 0.5, 1.0, 1.0, 2.0])
    outcome = Outcome(np.array([1, 0, 2, 3, 4]), scores, np.full(5, 3), 0.5, 0.1, 0.9)
    item = Item((None,), tuple(range(5)))
    assert rank_of(Decided(Sample("a", 0, {}, item)), outcome) == 4
    several = replace(item, right=(0, 3))
    assert rank_of(Decided(Sample("a", 0, {}, several)), outcome) == 3
    outside = Sample("a", 0, {}, item, shortlisted=Shortlisted((1, 2), rank=7))
    assert rank_of(Decided(outside), outcome) == 7


def test_any_right_answer_counts_when_a_query_is_decided_again(tmp_path: Path) -> None:
    """By `--again`, by `--audit`, and for weights of levels, which learn from every query."""
    Given.rows = texts_of_images()
    ours = run(tmp_path, "full", "--again", N, "--save-errors", draws=FIRST).json
    seed = ("--seed", ours["again"]["seed"], "--noise-per", "image")
    theirs = run(tmp_path, "full", *seed, draws=FIRST).json
    first, other = (read_records(Path(done["results_dir"])) for done in (ours, theirs))
    assert any(line["top"][0][0] != line["prediction"] for line in first.values())
    changed = [name for name in first if first[name]["prediction"] != other[name]["prediction"]]
    assert changed and ours["again"]["changed"] == sorted(changed)
    race = run(tmp_path, "race", "--audit", N, draws=DRAWS).json
    swept = Path(race["results_dir"], "audit.jsonl").read_text().splitlines()
    for line in map(json.loads, swept):
        number = int(line["sample_id"][-2:])
        right, row = right_texts(number), errors(DRAWS, False)[number]
        best = int(row.argmin())
        assert line["prediction"] == (right[0] if best in right else best)
    Given.rows = texts_of_images().select(range(4))
    learned = ("--weighting", f"learned:{ours['run_id']}")
    done = run(tmp_path, "full", *learned, draws=FIRST)
    equal = np.mean([rank(row, right_texts(n)) == 1 for n, row in enumerate(errors(FIRST, False))])
    assert f"{equal:.3f} with equal weights" in done.err


LISTS: dict[str, Any] = {
    "empty": [],
    "twice": [1, 1],
    "out of range": [-1, N],
    "nothing": [None, 1],
    "truth": [True],
    "all": list(range(N)),
}


@pytest.mark.parametrize("case", LISTS)
def test_right_answers_that_are_wrong(case: str) -> None:
    texts, images = gallery()
    rows = {"sample_id": ["a"], "image": images[:1], "texts": [texts], "label": [LISTS[case]]}
    Given.rows = with_images(rows)
    assert bench("run", "captions", "--backbone", "painter").refuses("item 'a'")


def test_shortlists_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Given, "rows", texts_of_images())
    first = run(tmp_path, "full", draws=FIRST).json["run_id"]
    part = run(tmp_path, "full", "--limit", 3, "--seed", 1, draws=FIRST).json["run_id"]
    for source, top, said in ((first, N, "--top"), (first, 11, "--top"), (part, 2, "decided")):
        refusal = run(tmp_path, "full", "--candidates-from", source, "--top", top, draws=DRAWS)
        assert refusal.refuses(said)
    done = run(tmp_path, "full", "--candidates-from", first, "--save-errors", draws=DRAWS)
    assert bench("replay", done.json["results_dir"], "--strategy", "race").refuses("candidates")
    for others in (images_of_texts(), one_image(), two_images()):
        monkeypatch.setattr(Given, "rows", others)
        refusal = run(tmp_path, "full", "--candidates-from", first, "--top", 2, draws=DRAWS)
        assert refusal.refuses("--candidates-from")


@pytest.mark.parametrize("direction", matrix(["images", "texts"], ["images"]))
def test_a_stopped_or_divided_run_equals_a_whole_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, direction: str
) -> None:
    rows, _, _, _, options = question(direction)
    monkeypatch.setattr(Given, "rows", rows)
    others = ExecutorSpec(name="here", target="bench.contracts.executor:Executor", in_process=True)
    monkeypatch.setitem(load_plugins().executors._specs, "here", others)  # checked as others' are
    first = run(tmp_path / "a", "full", *options, draws=FIRST).json["run_id"]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    more = [*options, "--candidates-from", first, "--top", 3]
    whole = Path(run(tmp_path / "a", "full", *more, draws=DRAWS).json["results_dir"])
    arguments = ["run", "captions", "--backbone", "painter", "--strategy", "full", *more]
    arguments += ["--set", f"draws={DRAWS}", "--results", tmp_path / "b"]
    with interrupted_after(5):
        assert bench(*arguments, "--executor", "here").code == 130
    again = Path(run(tmp_path / "b", "full", *more, draws=DRAWS).json["results_dir"])
    assert same(timeless(again), timeless(whole))
    shutil.rmtree(again)
    for shard in ("1/2", "2/2"):
        run(tmp_path / "b", "full", *more, "--shard", shard, draws=DRAWS)
    assert bench("results", "merge", again, "--results", tmp_path / "b").code == 0
    assert same(timeless(again), timeless(whole))
