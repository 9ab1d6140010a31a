"""Two values of every setting, for tests over all of them; `{root}` is a folder of files."""

from pathlib import Path
from typing import Any

import numpy as np
from helpers.command import bench
from helpers.given import make_folder, picture, write_parquet
from helpers.pipelines import save_pipeline
from safetensors.numpy import load_file, save_file

NAMES, OTHERS = ("cat", "dog", "elm", "fir"), ("ant", "bee", "cow", "doe")

# Setting → two of its values.
PAIRS: dict[str, tuple[Any, Any]] = {
    **{"dataset": ("{root}/pictures", "{root}/others"), "split": ("test", "train")},
    **{"data_dir": ("{root}/pictures", "{root}/again"), "limit": (None, 3)},
    **{"labels": ("{root}/labels.csv", "{root}/more.csv"), "skip_unlabelled": (False, True)},
    **{"holdout": (0.5, 0.3), "image_column": ("front", "back"), "label_column": ("kind", "sort")},
    **{"id_column": ("name", "code"), "class_names": ("{root}/a.txt", "{root}/b.txt")},
    **{"shard": ("1/2", "2/2"), "fit": ("crop", "squash"), "resolution": (16, 32)},
    **{"normalize": ("half", "cifar10"), "views": (None, "flip"), "control": (None, "grey")},
    **{"corrupt": (None, "fog:3"), "template": ("{class}", ["a {class}", "the {class}"])},
    **{"prompts": ("{root}/a.csv", "{root}/b.csv"), "template_rule": ("best", "mean")},
    **{"hierarchy": ("{root}/tree.csv", "{root}/other-tree.csv"), "top": (2, 3)},
    **{"candidates_from": ("{root}/r/one", "{root}/r/two"), "strategy": ("full", "uniform")},
    **{"params": ({"draws": 3}, {"draws": 4}), "risk": (0.1, 0.2)},
    **{"risk_else": ("full", "schedule"), "results": ("{root}/r", "{root}/s")},
    **{"note": (None, "a note"), "tag": (None, "paper"), "save_errors": (False, True)},
    **{"again": (None, 2), "audit": (None, 2), "until": ("width 0.1", "width 0.2")},
    **{"fresh": (False, True), "min_accuracy": (None, 0.5), "loss": ("l2", "l1")},
    **{"space": ("prediction", "epsilon"), "weighting": ("uniform", "exp:-7")},
    **{"guidance": (None, 2.0), "subtract_null": (False, True), "latent": ("mean", "sample")},
    **{"levels": (None, "0-700"), "noise": ("{root}/a.safetensors", "{root}/b.safetensors")},
    **{"noise_per": ("run", "image"), "plan": (None, "antithetic"), "seed": (0, 3)},
    **{"device": ("cpu", "cuda"), "batch_size": ("auto", 7), "executor": ("local", "ray")},
    **{"workers": (2, 3), "ray_address": (None, "auto"), "offline": (False, True)},
    **{"tf32": (False, True), "compile": (False, True), "layout": ("auto", "channels-last")},
    **{"attention": ("auto", "math"), "dtype": ("float32", "bfloat16")},
    **{"offload": (None, "model"), "encoding": ("float32", "tf32")},
    **{"backbone": ("{root}/whole", "{root}/trained"), "fit_split": ("train", "validation")},
    **{"weights": ("{root}/whole", "{root}/trained"), "revision": ("v1", "v2")},
    **{"lora": ("{root}/one.safetensors", "{root}/two.safetensors"), "tracker": (None, "wandb")},
}

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
    "holdout": {"dataset": "{root}/whole-folder"},
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


def make_files(root: Path) -> Path:
    """Write all files that the settings name into a folder, and return it."""
    shades = iter(range(256))
    for folder, names in (("pictures", NAMES), ("again", NAMES), ("others", OTHERS)):
        for place in (f"{split}/{n}" for split in ("test", "train", "validation") for n in names):
            (root / folder / place).mkdir(parents=True)
            (root / folder / place / "1.png").write_bytes(picture(next(shades))["bytes"])
    make_folder(root / "whole-folder", *(f"{name}/{n}.png" for name in NAMES for n in range(9)))
    make_folder(root / "flat", *(f"{number}.png" for number in range(4)))
    for file, names in (("labels", NAMES), ("more", OTHERS)):
        rows = [f"{number}.png,{name}" for number, name in enumerate(names)]
        (root / f"{file}.csv").write_text("\n".join(["file,label", *rows]))
    columns = {"front": 0, "back": 9}
    images = {name: [picture(first + n) for n in range(4)] for name, first in columns.items()}
    texts = {"kind": NAMES, "sort": OTHERS, "name": list("1234"), "code": list("5678")}
    (root / "table").mkdir()
    for split in ("test", "train"):
        write_parquet(root / "table" / f"{split}.parquet", {**images, **texts})
    for file, names in (("a", NAMES), ("b", OTHERS)):
        (root / f"{file}.txt").write_text("\n".join(f"a {name}" for name in names))
        rows = [f"{text},{name},{n}" for n, (text, name) in enumerate(zip(names, NAMES))]  # noqa: B905
        (root / f"{file}.csv").write_text("\n".join(["prompt,classname,classidx", *rows]))
        noise = np.random.default_rng(ord(file)).normal(size=(3, 4, 8, 8)).astype(np.float32)
        save_file({"noise": noise}, root / f"{file}.safetensors")
    for file, words in (("tree", "a tree"), ("other-tree", "a plant")):
        rows = [f"tree,,{words}", "cat,,", "dog,,", "elm,tree,", "fir,tree,"]
        (root / f"{file}.csv").write_text("\n".join(["node,parent,words", *rows]))
    save_pipeline(root / "whole")
    trained = save_pipeline(root / "trained")
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
    """Return a setting's value with the folder that it names."""
    if isinstance(value, list):
        return [filled(part, root) for part in value]
    return value.replace("{root}", str(root)) if isinstance(value, str) else value
