"""Two runs that differ in one setting share exactly what its declaration says they share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.captions import Captions, two_images
from helpers.command import bench
from helpers.given import make_folder, picture, write_parquet
from helpers.matrix import matrix
from helpers.pipelines import save_indexed
from helpers.refusals import refused
from helpers.setting_values import PAIRS
from safetensors.numpy import load_file, save_file

from bench.running.classify import classify
from bench.running.prepare import prepare
from bench.running.question import PreparedRun
from bench.running.settings import SETTINGS, RunConfig, key_of, make_config
from bench.store.identity import digest

NAMES, OTHERS = ("cat", "dog", "elm", "fir"), ("ant", "bee", "cow", "doe")
BASE = {
    **{"dataset": "{root}/pictures", "backbone": "sd15", "weights": "{root}/whole"},
    **{"strategy": "full", "params": {"draws": 3}, "dtype": "float32"},
}
LEARNER: dict[str, Any] = {
    "backbone": "nearest-mean",
    "weights": None,
    "strategy": None,
    "params": {},
}
RACE = {"dataset": "digits", "strategy": "race", "params": {}, "risk": 0.1}
TABLE = {"dataset": "{root}/table", "image_column": "front", "label_column": "kind"}
# Setting → the other settings of both runs, as far as they are not those of BASE.
COMPANIONS: dict[str, dict[str, Any]] = {
    "encoding": {"dtype": "bfloat16", "device": "cuda"},
    "data_dir": {"dataset": "folder"},
    "labels": {"dataset": "{root}/flat"},
    **dict.fromkeys(("image_column", "label_column", "id_column"), TABLE),
    "template_rule": {"template": ["a {class}", "the {class}"]},
    "hierarchy": {"strategy": "full-hierarchy"},
    "candidates_from": {"top": 2},
    "top": {"candidates_from": "{root}/r/one"},
    **dict.fromkeys(("risk", "risk_else"), RACE),
    "subtract_null": {"dataset": "captions", "backbone": "painter", "weights": None},
    **{name: {"executor": "ray"} for name in ("workers", "ray_address")},
    "fit_split": LEARNER,
    "backbone": {"weights": None},
    "lora": {"backbone": "{root}/whole", "weights": None},
}
# A risk needs a calibration, and a revision the Hub: `test_identity` has their effect on it.
ELSEWHERE = {"risk", "risk_else", "revision"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all files that the settings name."""
    root = tmp_path_factory.mktemp("declarations")
    shades = iter(range(256))
    for folder, names in (("pictures", NAMES), ("again", NAMES), ("others", OTHERS)):
        for place in (f"{split}/{n}" for split in ("test", "train", "validation") for n in names):
            (root / folder / place).mkdir(parents=True)
            (root / folder / place / "1.png").write_bytes(picture(next(shades))["bytes"])
    make_folder(root / "flat", *(f"{number}.png" for number in range(4)))
    for file, names in (("labels", NAMES), ("more", OTHERS)):
        rows = [f"{number}.png,{name}" for number, name in enumerate(names)]
        (root / f"{file}.csv").write_text("\n".join(["file,label", *rows]))
    columns = {"front": 0, "back": 9}
    images = {name: [picture(first + n) for n in range(4)] for name, first in columns.items()}
    texts = {"kind": NAMES, "sort": OTHERS, "name": list("1234"), "code": list("5678")}
    (root / "table").mkdir()
    write_parquet(root / "table" / "test.parquet", {**images, **texts})
    for file, names in (("a", NAMES), ("b", OTHERS)):
        (root / f"{file}.txt").write_text("\n".join(f"a {name}" for name in names))
        rows = [f"{text},{name},{n}" for n, (text, name) in enumerate(zip(names, NAMES))]  # noqa: B905
        (root / f"{file}.csv").write_text("\n".join(["prompt,classname,classidx", *rows]))
        noise = np.random.default_rng(ord(file)).normal(size=(3, 4, 8, 8)).astype(np.float32)
        save_file({"noise": noise}, root / f"{file}.safetensors")
    for file, words in (("tree", "a tree"), ("other-tree", "a plant")):
        rows = [f"tree,,{words}", "cat,,", "dog,,", "elm,tree,", "fir,tree,"]
        (root / f"{file}.csv").write_text("\n".join(["node,parent,words", *rows]))
    save_indexed(root / "whole")
    trained = save_indexed(root / "trained")
    change(trained / "text_encoder" / "model.safetensors")
    for file, value in (("one", 1.0), ("two", 2.0)):
        lora = {"unet.to_q.lora_A.weight": np.full((2, 2), value, np.float32)}
        save_file(lora, root / f"{file}.safetensors")
    for seed, name in ((1, "one"), (2, "two")):
        results = root / name
        done = bench("run", root / "pictures", "--split", "test", "--backbone", "random",
                     "--set", f"seed={seed}", "--results", results, "--json")  # fmt: skip
        assert done.code == 0, done.err
        (root / "r").mkdir(exist_ok=True)
        Path(done.json["results_dir"]).rename(root / "r" / name)
    return root


def change(file: Path) -> None:
    """Change one tensor of a safetensors file a little."""
    tensors = load_file(file)
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] + 1e-3}, file, metadata={"format": "pt"})


def filled(value: Any, root: Path) -> Any:
    return value.replace("{root}", str(root)) if isinstance(value, str) else value


@pytest.fixture(autouse=True)
def items(captions: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Captions, "rows", two_images())
    yield


def both(name: str, root: Path) -> tuple[RunConfig, RunConfig]:
    """Return the settings of two runs that differ only in the setting `name`."""
    shared = {**BASE, "split": "test", **COMPANIONS.get(name, {})}
    if shared["dataset"] != BASE["dataset"]:
        del shared["split"]
    one, other = (
        make_config({key: filled(v, root) for key, v in {**shared, name: value}.items()})
        for value in PAIRS[name]
    )
    return one, other


def identity(prepared: PreparedRun) -> str:
    return digest(prepared.manifest.identity)


def test_every_setting_has_two_values() -> None:
    assert PAIRS.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", sorted(PAIRS.keys() - {"revision"}))
def test_runs_share_what_the_declaration_says(name: str, root: Path) -> None:
    declared = SETTINGS[name]
    one, other = map(prepare, both(name, root))
    differ = {
        "network": one.names.backbone.learns
        or one.content.backbone_key != other.content.backbone_key,
        "prompts": one.names.kind.text_files(one.content)
        != other.names.kind.text_files(other.content),
        "data": key_of(one.config, "data") != key_of(other.config, "data"),
    }
    assert differ == {subject: subject in declared.about for subject in differ}
    if name not in ELSEWHERE:
        assert (identity(one) != identity(other)) == (declared.identity not in (None, "half"))
    if "data" not in declared.about:
        assert one.split is not None and other.split is not None
        assert one.split.fingerprint == other.split.fingerprint


@pytest.mark.parametrize("name", [n for n in SETTINGS if SETTINGS[n].identity == "half"])
def test_what_only_rounds_differently_counts_in_half_precision(name: str, root: Path) -> None:
    half = (config.model_copy(update={"dtype": "bfloat16"}) for config in both(name, root))
    one, other = map(prepare, half)
    assert identity(one) != identity(other)


@pytest.mark.parametrize("name", [n for n in SETTINGS if not SETTINGS[n].in_classify])
def test_pictures_are_not_classified_with_a_setting_of_splits(name: str, root: Path) -> None:
    _, config = both(name, root)
    with refused("--", "split"):
        classify(config, ["picture.png"], NAMES)


@pytest.mark.parametrize("part", matrix(["unet", "vae", "text_encoder"], ["unet"]))
def test_fine_tuned_networks_share_encoded_prompts(part: str, tmp_path: Path) -> None:
    folder = save_indexed(tmp_path / "pipeline")

    def prepared() -> PreparedRun:
        return prepare(make_config({"dataset": "digits", "backbone": str(folder)}))

    before = prepared()
    encoded = before.names.kind.text_files(before.content)
    change(next((folder / part).glob("*.safetensors")))
    after = prepared()
    assert before.content.backbone_key != after.content.backbone_key
    assert (encoded == after.names.kind.text_files(after.content)) == (part != "text_encoder")
