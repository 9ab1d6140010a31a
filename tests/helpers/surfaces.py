"""Every kind of input: how it is made, damaged and read, each in milliseconds.

Six pictures in three colours, and a classifier that tells them.
"""

import csv
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.command import Finished, bench
from helpers.given import stored as encoded
from helpers.given import write_tar
from helpers.mutations import as_json, as_toml, damaged, edited, replaced
from numpy.typing import NDArray
from PIL import Image

from bench.store.folder import read_manifest, read_records
from bench.view.pages import Pages
from bench.view.stored import Stored

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class Colours:
    """A classifier: how much of the colour that a text names is in a picture."""

    def __init__(self, weights: Any, *, device: str, dtype: str) -> None:
        pass

    def score(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        wanted = np.array([[c in text for c in COLOURS] for text in texts], np.float32)
        pixels = [np.asarray(image.convert("RGB"), np.float32) for image in images]
        shares = [image.mean((0, 1)) / 255 for image in pixels]
        return np.array(shares, np.float32) @ wanted.T


@dataclass(frozen=True)
class Surface:
    """A kind of input.

    Attributes:
        make: writes the undamaged input into a folder.
        damage: changes something in the folder.
        use: reads the input with a command; what it says of the result is compared.
    """

    make: Callable[[Path], None]
    damage: Callable[[Path, random.Random], None]
    use: Callable[[Path, random.Random], tuple[Finished, Any]]


# The pictures, and the decisions about them.


def pictures() -> dict[str, tuple[str, bytes]]:
    """Return name → colour and PNG of the six pictures."""
    files = {name: encoded(Image.new("RGB", (9, 8), c))["bytes"] for name, c in COLOURS.items()}
    return {f"{number}.png": pair for number, pair in enumerate([*files.items()] * 2)}


def cache_of(folder: Path) -> Path:
    """Return the cache of a case."""
    return folder.with_name("cache")


def decided(
    folder: Path, source: object, *more: object, backbone: str = "colours"
) -> tuple[Finished, Any]:
    """Score the data; return the names of each image's label and prediction, and the metrics."""
    results = folder.with_name("results")
    done = bench(
        *("run", source, "--backbone", backbone, "--results", results, "--json", *more),
        BENCH_CACHE_DIR=str(cache_of(folder)),
    )
    if done.code:
        return done, None
    run = Path(done.json["results_dir"])
    names = read_manifest(run).classes
    found = {
        sample.removesuffix(".png"): (names[r["label"]], names[r["prediction"]])
        for sample, r in read_records(run).items()
    }
    return done, (found, done.json["dataset"]["n_total"], done.json["metrics"]["accuracy"])


DECLARATION: dict[str, Any] = {
    "name": "colours-of-six",
    "source": "data",
    "version": 1,
    "summary": "six pictures",
    "classes": ["red", "green", "blue"],
    "template": "a {class} picture",
    "templates": {"two": ["{class}", "all {class}"]},
    "splits": {"all": 6},
    "split": "all",
    "columns": {"image": "file_name", "label": "label"},
    "phrases": {"red": "a red"},
    "licence": "CC0",
    "border": 0,
    "leave_out_others": False,
    "within": {},
    "duplicates": {},
    "homepage": "https://example.org",
}


def make_table(folder: Path, lines: bool = False) -> None:
    """Write the pictures, their table, and the declaration of its classes."""
    data = folder / "data"
    data.mkdir(parents=True)
    rows = [{"file_name": name, "label": colour} for name, (colour, _) in pictures().items()]
    for name, (_, content) in pictures().items():
        (data / name).write_bytes(content)
    if lines:
        (data / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        with (data / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "label"])
            writer.writeheader()
            writer.writerows(rows)
    (folder / "colours.toml").write_bytes(as_toml(DECLARATION))


def use_declared(folder: Path, rng: random.Random) -> tuple[Finished, Any]:
    return decided(folder, folder / "colours.toml")


def damage_table(folder: Path, rng: random.Random) -> None:
    """Damage the table: some cases one of JSON lines, by a value or by bytes."""
    table, data = folder / "data/metadata.csv", folder / "data"
    if rng.random() < 0.1:
        return replaced(rng.choice((table, data / "0.png")), outside(folder), rng)
    if rng.random() < 0.5:
        table.unlink()
        rows = [{"file_name": n, "label": colour} for n, (colour, _) in pictures().items()]
        content = b"".join(json.dumps(row).encode() + b"\n" for row in edited(rows, rng))
        table = data / "metadata.jsonl"
        table.write_bytes(content if rng.random() < 0.7 else damaged(content, rng))
    else:
        table.write_bytes(damaged(table.read_bytes(), rng))


def damage_declaration(folder: Path, rng: random.Random) -> None:
    """Damage the declaration: by a value, or by bytes."""
    file = folder / "colours.toml"
    if rng.random() < 0.1:
        return replaced(file, outside(folder), rng)
    if rng.random() < 0.7:
        content = edited(DECLARATION, rng)
        file.write_bytes(as_toml(content) if isinstance(content, dict) else as_json(content))
    else:
        file.write_bytes(damaged(file.read_bytes(), rng))


def outside(folder: Path) -> Path:
    """Return a file that nobody named."""
    path = folder.with_name("outside")
    path.write_text("red\n")
    return path


def make_tar(folder: Path) -> None:
    """Write the pictures as a WebDataset tar."""
    members: dict[str, bytes] = {}
    for name, (colour, content) in pictures().items():
        members |= {name: content, name.replace("png", "cls"): colour.encode()}
    write_tar(folder / "test.tar", members)


def damage_tar(folder: Path, rng: random.Random) -> None:
    """Damage a tar; of these cases none meets the letters of a label, which nobody could see."""
    path = folder / "test.tar"
    if rng.random() < 0.05:
        return replaced(path, outside(folder), rng)
    content = path.read_bytes()
    path.write_bytes(damaged(content, rng))


def make_parquet(folder: Path) -> None:
    """Write the pictures as a parquet file, with checksums of its pages."""
    rows = [
        {"image": {"bytes": content, "path": name}, "label": colour}
        for name, (colour, content) in pictures().items()
    ]
    data = folder / "data"
    data.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), data / "pictures.parquet", write_page_checksum=True)
    declaration = {**DECLARATION, "columns": {"image": "image", "label": "label"}}
    (folder / "colours.toml").write_bytes(as_toml(declaration))


def damage_parquet(folder: Path, rng: random.Random) -> None:
    path = folder / "data/pictures.parquet"
    if rng.random() < 0.05:
        return replaced(path, outside(folder), rng)
    path.write_bytes(damaged(path.read_bytes(), rng))


def use_folder(folder: Path, rng: random.Random) -> tuple[Finished, Any]:
    return decided(folder, f"{folder}{os.sep}")


# Caches: what is kept there is made again where it is wrong.


def make_cached(folder: Path) -> None:
    """Write a tar, and fill a cache from it."""
    make_tar(folder)
    done, _ = use_folder(folder, random.Random(0))
    assert done.code == 0, done.err


def make_embedded(folder: Path) -> None:
    """Fill a cache with the embeddings of a denoiser's prompts."""
    folder.mkdir(parents=True)
    done, _ = use_denoiser(folder, random.Random(0))
    assert done.code == 0, done.err


def use_denoiser(folder: Path, rng: random.Random) -> tuple[Finished, Any]:
    """Score digits with a small denoiser."""
    more = ("--limit", 6, "--strategy", "uniform", "--set", "draws=2", "--fresh")
    return decided(folder, "digits", *more, backbone="tiny-digits")


def damage_cache(folder: Path, rng: random.Random) -> None:
    """Damage one file of the cache; its time may stay."""
    files = sorted(path for path in cache_of(folder).rglob("*") if path.is_file())
    path = rng.choice(files)
    if rng.random() < 0.1:
        return replaced(path, outside(folder), rng)
    facts = path.stat()
    path.write_bytes(damaged(path.read_bytes(), rng))
    if rng.random() < 0.3:
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


# Stored runs: whatever reads them; and what is submitted for publication.

RUN_READERS = (
    ("show", "first", "--json"),
    ("show", "first", "--statistics"),
    ("leaderboard", "--json"),
    ("runs", "--json"),
    ("compare", "first", "second", "--json"),
    ("replay", "first", "--strategy", "uniform", "--set", "samples=4", "--fresh", "--json"),
    ("sweep", "first", "--strategies", "uniform", "--json"),
    ("learn", "first", "calibration", "--strategy", "uniform", "--json"),
    ("learn", "first", "deviation", "--json"),
    ("export", "first", "--format", "csv"),
    ("export", "first", "--format", "latex"),
    ("power", "first", "second", "--json"),
    ("report", "first", "second", "--out", "PATH/page.html", "--json"),
    ("view", "/run?run=first"),
    ("view", "/compare?a=first&b=second"),
)
NEW_RUN = ("run", "digits", "--limit", "3", "--strategy", "uniform", "--set", "draws=4", "--fresh")
LEARNING = (
    ("learn", "first", "deviation", "--json"),
    ("learn", "first", "reach", "--json"),
    ("learn", "first", "--json"),
    (*NEW_RUN, "--split", "train", "--weighting", "learned:first", "--json"),
    (*NEW_RUN, "--candidates-from", "first", "--top", "3", "--json"),
)
# Surface → the commands that read it. PATH in a command stands for the folder of the results.
READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "run": RUN_READERS,
    "learned": LEARNING,
    "error table": (
        ("replay", "PATH/table", "--strategy", "uniform", "--set", "samples=4", "--json"),
        ("sweep", "PATH/table", "--strategies", "uniform", "--json"),
        ("learn", "PATH/table", "deviation", "--json"),
        ("show", "PATH/table", "--json"),
    ),
}


def make_runs(folder: Path) -> None:
    """Make two runs of six digits, the first recorded, with a calibration and a repetition."""
    recorded = ("--strategy", "full", "--set", "draws=8", "--save-errors", "--again", 3)
    for name, more in (("first", recorded), ("second", ("--backbone", "random"))):
        done = bench("run", "digits", "--limit", 6, "--results", folder, "--json", *more)
        assert done.code == 0, done.err
        Path(done.json["results_dir"]).rename(folder / name)
    done = bench(*("learn", "first", "calibration", "--strategy", "uniform", "--results", folder))
    assert done.code == 0, done.err


def damage_stored(part: str, folder: Path, rng: random.Random) -> None:
    """Damage one file of a part of the results: a document by a value, or any by bytes."""
    files = sorted(path for path in (folder / part).rglob("*") if path.is_file())
    path = rng.choice(files)
    documents = [path for path in files if path.suffix in (".json", ".jsonl")]
    if rng.random() < 0.05:
        return replaced(path, outside(folder), rng)
    if rng.random() < 0.6:
        path = rng.choice(documents)
        lines = path.read_text("utf-8").splitlines()
        if path.suffix == ".json":
            lines = ["".join(lines)]
        place = rng.randrange(len(lines))
        lines[place] = as_json(edited(json.loads(lines[place]), rng)).decode()
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))


def make_learned(folder: Path) -> None:
    """Record a run that settings, risks and weights of levels can be learned from."""
    done = bench(
        *("run", "digits", "--limit", 90, "--strategy", "full-linearised", "--set", "draws=8"),
        *("--save-errors", "--results", folder, "--json"),
    )
    assert done.code == 0, done.err
    Path(done.json["results_dir"]).rename(folder / "first")


def make_error_table(folder: Path) -> None:
    """Export the errors of a run, as they are passed on."""
    make_runs(folder)
    done = bench(
        *("export", "first", "--format", "errors"),
        *("--out", folder / "table", "--results", folder),
    )
    assert done.code == 0, done.err


def read_with(command: Sequence[str], folder: Path) -> Finished:
    """Read the results with a command, whose JSON has no NaN, or with a page of `bench view`."""
    words = [word.replace("PATH", str(folder)) for word in command]
    if words[0] == "view":
        page = urlsplit(words[1])
        answer = Pages(Stored(folder, {})).answer(page.path, dict(parse_qsl(page.query)))
        return Finished(0 if answer.code == 200 else 2, answer.content.decode(), "")
    done = bench(*words, "--results", folder, BENCH_CACHE_DIR=str(cache_of(folder)))
    if done.code == 0 and words[-1] == "--json":
        json.loads(done.out, parse_constant=lambda name: pytest.fail(f"{name} in {words}"))
    return done


def use_stored(surface: str, folder: Path, rng: random.Random) -> tuple[Finished, Any]:
    """Read the results with one of the commands; what it says of them is not compared."""
    return read_with(rng.choice(READERS[surface]), folder), None


def stored(surface: str, make: Callable[[Path], None], part: str = "first") -> Surface:
    """Return the surface of stored results, a part of which is damaged."""
    return Surface(make, partial(damage_stored, part), partial(use_stored, surface))


def use_submission(folder: Path, rng: random.Random) -> tuple[Finished, Any]:
    """Submit the first run, and check what was published; return the published figures."""
    published = folder / "published"
    done = bench("results", "add", "first", "--subset", "--results", folder, "--into", published)
    if done.code:
        return done, None
    checked = bench("results", "validate", "--into", published)
    [run] = [path for path in published.iterdir() if path.is_dir()]
    summary = json.loads((run / "summary.json").read_text())
    counts = {name: summary["dataset"][name] for name in ("n_samples", "n_total")}
    cost = summary["cost"]["evaluations"], summary["cost"]["evaluations_per_image"]
    return checked, (summary["metrics"]["accuracy"], counts, cost)


SURFACES = {
    "table": Surface(make_table, damage_table, use_declared),
    "tar": Surface(make_tar, damage_tar, use_folder),
    "declaration": Surface(make_table, damage_declaration, use_declared),
    "parquet": Surface(make_parquet, damage_parquet, use_declared),
    "cache": Surface(make_cached, damage_cache, use_folder),
    "embeddings": Surface(make_embedded, damage_cache, use_denoiser),
    "run": stored("run", make_runs),
    "learned": stored("learned", make_learned),
    "error table": stored("error table", make_error_table, "table"),
    "submission": Surface(make_runs, partial(damage_stored, "first"), use_submission),
}
