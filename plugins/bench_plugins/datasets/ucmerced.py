"""UC Merced Land Use (Yang & Newsam, ACM GIS 2010)."""

import csv
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import datasets

from bench.errors import UserError, warn_user
from bench.inputs.class_names import keep_alphanumeric
from bench.inputs.pixels import VERSION, PixelsError, decode
from bench.inputs.rows import as_dataset, make_dataset, make_unique
from bench.inputs.survey import ImageSurvey, find_source_files, hash_image, survey
from bench.machine.cache import cache_dir, read_cached, write_cached
from bench_plugins.datasets import UCMERCED_PHRASES
from bench_plugins.datasets._arrow import load_parquet
from bench_plugins.datasets._listing import load_images
from bench_plugins.datasets.hub import Hub

HUB_ID = "blanchon/UC_Merced"
TEST_SHARE = 0.2  # of each class, also among images that are not in the list


class UCMerced:
    """2,100 aerial images of 21 classes, 100 per class, most of them 256×256 pixels.

    The Hub's copy has one split and no file names, so an image's split is decided by its pixels:
    `ucmerced_split.csv` lists the SHA-256 (first 16 hex digits) of the RGB bytes of all 2,099
    distinct images (`airplane` has one exact duplicate) with their class and split.
    """

    def load(self, split: str | None, data_dir: str | None) -> datasets.Dataset:
        """Return a split. The sample ids are the pixel hashes.

        `test` has 20 per class, `train` the other 80, and `validation` the eight per class of
        `train` that `tiny-landuse` was not trained on. A local copy is parquet in the Hub's layout
        or a folder per class.
        """
        rows = _local(data_dir) if data_dir else Hub(HUB_ID).read("train")[0]
        _check_classes(rows, data_dir or HUB_ID)
        rows = rows.cast_column("image", datasets.Image(decode=False))
        rows = rows.select_columns(["image", "label"])
        table = rows.data.table
        sources = find_source_files(rows, table)
        hashes = _pixel_hashes(rows, survey(table.column("image"), sources))
        splits = assign_splits(hashes, rows["label"])
        whole = "train" if split == "validation" else split
        chosen = [row for row, part in enumerate(splits) if part == whole]
        if split == "validation":
            listed = set(_list("ucmerced_validation.txt").split())
            chosen = [row for row in chosen if hashes[row] in listed]
        # Only the chosen rows have ids: what makes an id unique depends on the split.
        ids = dict(zip(chosen, make_unique([hashes[row] for row in chosen]), strict=True))
        named = rows.add_column("sample_id", [ids.get(row) for row in range(len(rows))])
        return make_dataset(named.data, named.features, split, sources).select(chosen)


def assign_splits(hashes: list[str], labels: list[int]) -> list[str]:
    """Return each image's split, by pixel hash.

    Images that are not in the list get a stratified split by hash, with a warning.
    """
    lines = csv.DictReader(_list("ucmerced_split.csv").splitlines())
    listed = {row["pixel_sha256"]: row["split"] for row in lines}
    splits = [listed.get(pixels, "") for pixels in hashes]
    unknown = [row for row, split in enumerate(splits) if not split]
    if unknown:
        warn_user(
            f"{len(unknown)} of {len(hashes)} images are not in UC Merced's list of 2,099 (edited,"
            " rescaled or others). By a hash, a fifth of these in each class become test images."
        )
    by_class: dict[int, list[int]] = {}
    for row in unknown:
        by_class.setdefault(labels[row], []).append(row)
    for rows in by_class.values():
        rows.sort(key=lambda row: hashlib.sha256(f"split {hashes[row]}".encode()).hexdigest())
        n_test = round(TEST_SHARE * len(rows))
        for position, row in enumerate(rows):
            splits[row] = "test" if position < n_test else "train"
    return splits


def _list(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _local(data_dir: str) -> datasets.Dataset:
    folder = Path(data_dir)
    if any(folder.rglob("*.parquet")):
        return as_dataset(load_parquet(folder, None))
    # The original archive keeps its classes in UCMerced_LandUse/Images.
    nested = next((p for p in sorted(folder.rglob("Images")) if p.is_dir()), folder)
    return as_dataset(load_images(nested, "all"))


def _check_classes(rows: datasets.Dataset, source: str) -> None:
    """Raise UserError unless the labels are the 21 classes in order, however they are spelt."""
    expected = [keep_alphanumeric(name) for name in UCMERCED_PHRASES]
    feature = rows.features["label"]
    if not isinstance(feature, datasets.ClassLabel):
        raise UserError(f"{source}: the column 'label' must be a ClassLabel of 21 classes.")
    names = [keep_alphanumeric(name) for name in feature.names]
    if names != expected:
        missing = sorted(set(expected) - set(names)) or sorted(set(names) - set(expected))
        raise UserError(
            f"{source} does not hold UC Merced's 21 classes in order: found {len(names)},"
            f" differing at {missing[:3]}. For another dataset, name its folder instead."
        )


def _pixel_hashes(rows: datasets.Dataset, surveyed: ImageSurvey) -> list[str]:
    """Return each image's pixel hash, cached by the content of the encoded images."""
    encoded = hashlib.sha256()
    for row in range(len(rows)):
        encoded.update(bytes.fromhex(surveyed.digest(row)))
    memo = cache_dir("pixel-hashes", str(VERSION)) / f"{encoded.hexdigest()}.bin"
    if content := read_cached(memo):
        return content.decode().split()
    hashes = [_pixel_hash(row["image"]) for row in rows]
    write_cached(memo, " ".join(hashes))
    return hashes


def _pixel_hash(image: dict[str, Any]) -> str:
    try:
        pixels = decode(image).convert("RGB").tobytes()
    except PixelsError:  # a corrupt image fails when it is scored; here it only needs an id
        return hash_image(image)[:16]
    return hashlib.sha256(pixels).hexdigest()[:16]
