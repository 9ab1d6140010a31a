"""Recordings on which races are replayed: networks on images that they know, and on others.

    python benchmarks/race_recordings.py --results DIR [--images 40] [--only untrained,noise]
        [--compile] [--shard 1/2]

Each regime is recorded once, every prompt on every draw, and resumed where it was interrupted. 400
images of each are many hours on two cores. `--shard` records one part; when all are there, `bench
results merge` makes the recording. `DIR/regimes.json` says which folder is which regime's.
Images of UC Merced and of the digits are training images in the hard regimes, since the other
splits have fewer. UC Merced and Caltech-101 are looked for beside the checkout
(`tests/helpers/places.py`).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from helpers.places import CALTECH101, UCMERCED

import bench

INDEX = "regimes.json"
DRAWS = 20
VIEWS = (
    *("a satellite photo of", "an aerial photo of", "a satellite image of", "an aerial image of"),
    *("an overhead photo of", "a picture from above of", "a photo from the air of"),
)
BEACHES = ("a beach", "the beach", "some beach")
COPIES = 100
TRAINING: dict[str, Any] = {"data_dir": str(UCMERCED), "split": "train"}


def record(results: Path, dataset: Any, backbone: str, draws: int = DRAWS, **settings: Any) -> Path:
    """Record a full sweep, or what is missing of it."""
    more = {"results": str(results), "save_errors": True, "batch_size": 64, **settings}
    return Path(bench.run(dataset, backbone, "full", {"draws": draws}, **more)["results_dir"])


def shipped_digits(results: Path, **more: Any) -> Path:
    """The included weights for digits, on digits."""
    return record(results, "digits", "tiny-digits", draws=100, **more)


def shipped_landuse(results: Path, **more: Any) -> Path:
    """The included weights for land use, on UC Merced."""
    data = str(UCMERCED)
    return record(results, "ucmerced", "tiny-landuse", draws=40, data_dir=data, **more)


def untrained(results: Path, **more: Any) -> Path:
    """A small network with random weights."""
    from helpers.pipelines import save_pipeline

    folder = results / "untrained"
    if not (folder / "scheduler").exists():
        save_pipeline(folder, "sd21")
    return record(results, "ucmerced", f"{folder}/", **TRAINING, **more)


def paraphrases(results: Path, **more: Any) -> Path:
    """Every class is asked with another wording of one of them."""
    texts = [f"{view} {beach}" for view in VIEWS for beach in BEACHES]
    file = results / "paraphrases.csv"
    classes = bench.load_dataset("ucmerced", data_dir=str(UCMERCED)).features["label"].names
    with file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("prompt", "classname", "classidx"))
        rows.writerows((t, c, i) for i, (t, c) in enumerate(zip(texts, classes, strict=True)))
    return record(results, "ucmerced", "tiny-landuse", prompts=str(file), **TRAINING, **more)


def digits_on_landscapes(results: Path, **more: Any) -> Path:
    """The weights for digits, on landscapes."""
    return record(results, "ucmerced", "tiny-digits", **TRAINING, **more)


def digits_on_objects(results: Path, **more: Any) -> Path:
    """The weights for digits, on 101 kinds of objects."""
    return record(results, f"{CALTECH101}/", "tiny-digits", **more)


def landuse_on_digits(results: Path, **more: Any) -> Path:
    """The weights for land use, on digits."""
    return record(results, "digits", "tiny-landuse", split="train", **more)


def landuse_on_objects(results: Path, **more: Any) -> Path:
    """The weights for land use, on 101 kinds of objects."""
    return record(results, f"{CALTECH101}/", "tiny-landuse", **more)


def noise(results: Path, **more: Any) -> Path:
    """Pure noise in the place of each image."""
    return record(results, "ucmerced", "tiny-landuse", control="noise", **TRAINING, **more)


def near_duplicates(results: Path, **more: Any) -> Path:
    """A hundred classes whose prompts differ in a number."""
    import datasets

    digits = bench.load_dataset("digits", split="train")
    names = datasets.ClassLabel(names=[f"copy {number}" for number in range(COPIES)])
    rows = digits.cast_column("label", names)
    rows.info.dataset_name = "copies"
    template = "a handwritten digit three, {class}"
    return record(results, rows, "tiny-digits", template=template, **more)


class Regime(NamedTuple):
    """How a regime is recorded, and the settings of the race that is used there today."""

    record: Callable[..., Path]
    first: int = 4
    bands: str = "even"


REGIMES = {
    "digits": Regime(shipped_digits, bands="570-614"),
    "UC Merced": Regime(shipped_landuse, first=2),
    "digits' weights on landscapes": Regime(digits_on_landscapes, bands="570-614"),
    "digits' weights on objects": Regime(digits_on_objects, bands="570-614"),
    "land use's weights on digits": Regime(landuse_on_digits, first=2),
    "land use's weights on objects": Regime(landuse_on_objects, first=2),
    "paraphrases": Regime(paraphrases, first=2),
    "untrained": Regime(untrained),
    "noise": Regime(noise, first=2),
    "near duplicates": Regime(near_duplicates, bands="570-614"),
}


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--only", default=",".join(REGIMES))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--shard")
    arguments = parser.parse_args()
    more = {"limit": arguments.images, "compile": arguments.compile, "shard": arguments.shard}
    arguments.results.mkdir(parents=True, exist_ok=True)
    index = arguments.results / INDEX
    for name in arguments.only.split(","):
        folder = REGIMES[name].record(arguments.results, **more)
        folders = json.loads(index.read_text("utf-8")) if index.exists() else {}
        index.write_text(json.dumps({**folders, name: folder.name}, indent=1), "utf-8")
        print(f"{name}: {folder}", flush=True)


if __name__ == "__main__":
    main()
