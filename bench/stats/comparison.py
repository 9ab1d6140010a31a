"""Two runs on the same images: which decides better, and is it more than chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError
from bench.stats.metrics import accuracy_interval
from bench.store.decisions import Decisions, read_decisions
from bench.store.documents import Manifest
from bench.store.folder import read_manifest

RESAMPLES = 10_000
ALPHA = 0.05

Bools = NDArray[np.bool_]


def compare(path_a: Path, path_b: Path, seed: int = 0) -> dict[str, Any]:
    """Compare run B with run A, the baseline, on the samples that both decided.

    Args:
        path_a: the folder of A.
        path_b: the folder of B.
        seed: of the bootstrap.

    Returns:
        run_a, run_b; n (pairs); accuracy_a, accuracy_b; difference (B less A) and
        difference_ci95; wins (B is right where A is wrong), losses, ties; mcnemar_p; significant
        (p < 0.05) and regression (significant, and B is worse); agreement (the same prediction)
        and agreement_ci95; per_class; cost_ratio and seconds_ratio (B over A, None where a side
        is unknown); settings (those that differ: name → [A's, B's]); warnings.

    Raises:
        UserError: dataset, version, split or classes differ, a sample's label does, or the runs
            share no sample. Anything less is a warning in the result.
    """
    manifests = read_manifest(path_a), read_manifest(path_b)
    check_comparable(*manifests)
    a, b = (read_decisions(p, m) for p, m in zip((path_a, path_b), manifests, strict=True))
    rows_a, rows_b = shared_rows(a, b)
    names = [m.run_id for m in manifests]
    if not len(rows_a):
        raise UserError(f"{names[0]} and {names[1]} share no decided sample.")
    labels = a.labels[rows_a]
    if (labels != b.labels[rows_b]).any():
        raise UserError(f"{names[0]} and {names[1]} give the same samples different labels.")
    right_a, right_b = a.correct[rows_a], b.correct[rows_b]
    n, same = len(labels), int((a.predictions[rows_a] == b.predictions[rows_b]).sum())
    outcome = paired_test(right_a, right_b, seed)
    significant = outcome["mcnemar_p"] < ALPHA
    return {
        "run_a": names[0],
        "run_b": names[1],
        "n": n,
        "accuracy_a": float(right_a.mean()),
        "accuracy_b": float(right_b.mean()),
        **outcome,
        "significant": significant,
        "regression": significant and outcome["difference"] < 0,
        "agreement": same / n,
        "agreement_ci95": list(accuracy_interval(same, n)),
        "per_class": class_differences(labels, right_a, right_b, manifests[0].classes),
        "cost_ratio": _ratio(a.evaluations[rows_a], b.evaluations[rows_b]),
        "seconds_ratio": None
        if any(m.replayed_from for m in manifests)
        else _ratio(a.seconds[rows_a], b.seconds[rows_b]),
        "settings": differing_settings(*manifests),
        "warnings": _warnings(manifests, (a, b), n),
    }


def check_comparable(a: Manifest, b: Manifest) -> None:
    """Refuse runs whose samples or classes are not the same things.

    Raises:
        UserError: dataset, version, split or classes differ; the message says which.
    """
    kinds = (
        ("dataset", a.dataset.name, b.dataset.name),
        ("version of the dataset", a.dataset.version, b.dataset.version),
        ("split", a.dataset.split, b.dataset.split),
    )
    for words, has_a, has_b in kinds:
        if has_a != has_b:
            raise UserError(
                f"These runs do not compare, the {words} differs: {a.run_id} has"
                f" {has_a!r}, {b.run_id} has {has_b!r}."
            )
    if a.classes != b.classes:
        odd = sorted(set(a.classes) ^ set(b.classes))
        what = f"only one has {odd[0]!r}" if odd else "their order differs"
        raise UserError(
            f"These runs do not compare, the classes of {a.run_id} and {b.run_id} differ: {what}."
        )


def shared_rows(a: Decisions, b: Decisions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows in A and in B of the samples that both have, int64 [n] each."""
    import pyarrow.compute as pc

    where = pc.index_in(a.sample_ids, value_set=b.sample_ids)
    rows_a = np.flatnonzero(where.is_valid().to_numpy(zero_copy_only=False))
    return rows_a, where.drop_null().to_numpy().astype(np.int64)


def paired_test(right_a: Bools, right_b: Bools, seed: int = 0) -> dict[str, Any]:
    """Return wins, losses, ties, exact McNemar p, and B's difference with its 95 % interval.

    McNemar's exact test (Psychometrika 1947) is a two-sided sign test on the samples that one
    side alone has right. The interval is the percentile bootstrap over pairs: a pair's difference
    is 1, 0 or -1, so that resampling pairs is drawing three counts, and takes no longer for
    200,000 samples than for 20. Where no pair differs it has no width; then the share of pairs
    that might differ is below 3 / n (the rule of three).

    Args:
        right_a: bool [n], whether A is right.
        right_b: bool [n], whether B is right on the same samples.
        seed: of the bootstrap.
    """
    n = len(right_a)
    wins, losses = int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum())
    shares = np.array([wins, losses, n - wins - losses]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=RESAMPLES)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / n, [0.025, 0.975])
    return {
        "difference": (wins - losses) / n,
        "difference_ci95": [float(low), float(high)],
        "wins": wins,
        "losses": losses,
        "ties": n - wins - losses,
        "mcnemar_p": float(mcnemar(wins, losses)),
    }


def mcnemar(wins: Any, losses: Any) -> Any:
    """Return the two-sided p of the exact McNemar test; 1 where no pair differs.

    Twice the lower tail of Binomial(wins + losses, 1/2) at the smaller of the two. Whole numbers,
    or arrays of them.
    """
    from scipy.special import bdtr

    return np.minimum(1.0, 2 * bdtr(np.minimum(wins, losses), np.add(wins, losses), 0.5))


def class_differences(
    labels: NDArray[np.int64], right_a: Bools, right_b: Bools, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return for each class with samples: class, n, accuracies, difference, wins, losses, p.

    `p_adjusted` controls the false discovery rate over the classes (Benjamini & Hochberg 1995):
    of many classes some differ by chance alone.
    """
    from scipy.stats import false_discovery_control

    def count(chosen: Bools) -> NDArray[np.int64]:
        return np.bincount(labels[chosen], minlength=len(classes))

    n = np.bincount(labels, minlength=len(classes))
    hits_a, hits_b = count(right_a), count(right_b)
    wins, losses = count(right_b & ~right_a), count(right_a & ~right_b)
    seen = np.flatnonzero(n).tolist()
    p = mcnemar(wins[seen], losses[seen])
    return [
        {
            "class": classes[c],
            "n": int(n[c]),
            "accuracy_a": float(hits_a[c] / n[c]),
            "accuracy_b": float(hits_b[c] / n[c]),
            "difference": float((hits_b[c] - hits_a[c]) / n[c]),
            "wins": int(wins[c]),
            "losses": int(losses[c]),
            "mcnemar_p": float(p_alone),
            "p_adjusted": float(adjusted),
        }
        for c, p_alone, adjusted in zip(seen, p, false_discovery_control(p), strict=True)
    ]


def differing_settings(a: Manifest, b: Manifest) -> dict[str, list[Any]]:
    """Return what distinguishes the runs' identities: dotted name → [A's value, B's value]."""
    flat_a, flat_b = (dict(_flat(m.identity.plain())) for m in (a, b))
    names = dict.fromkeys([*flat_a, *flat_b])
    return {
        name: [flat_a.get(name), flat_b.get(name)]
        for name in names
        if flat_a.get(name) != flat_b.get(name)
    }


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found += _flat(inner, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", inner))
    return found


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    return float(b.sum() / a.sum()) if a.sum() > 0 and b.sum() > 0 else None


def _warnings(manifests: Sequence[Manifest], decided: Sequence[Decisions], n: int) -> list[str]:
    """Return what a reader must know before believing the comparison."""
    said = []
    prints = [m.identity.dataset.fingerprint for m in manifests]
    if prints[0] != prints[1]:
        said.append(
            f"The data differs (fingerprint {prints[0][:8]} in A, {prints[1][:8]} in B): samples"
            " are paired by id, but images were added, left out, changed or encoded anew."
        )
    for manifest, own in zip(manifests, decided, strict=True):
        name, asked = manifest.run_id, len(manifest.samples)
        if len(own) < asked:
            said.append(f"{name} is not complete: {len(own)} of {asked} images are decided.")
        if len(own) > n:
            said.append(
                f"{len(own) - n} of {name}'s {len(own)} images are left out: only it has them."
            )
        if failed := int(own.failed.sum()):
            said.append(f"{failed} images failed in {name} and count as wrong.")
    total = manifests[0].dataset.n_total
    if n < total:
        said.append(f"This is a subset: {n} of the split's {total} images.")
    trained = [m.backbone.trained_on for m in manifests]
    if trained[0] != trained[1]:
        a, b = (f"trained on {t}" if t else "zero-shot" for t in trained)
        said.append(f"Their backbones have seen different data: A is {a}, B is {b}.")
    if manifests[0].identity.prompts != manifests[1].identity.prompts:
        said.append("They ask with different prompts.")
    return said
