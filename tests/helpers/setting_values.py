"""Two values of every setting, for tests over all of them; `{root}` is a folder of files."""

from __future__ import annotations

from typing import Any

# Setting → two of its values.
PAIRS: dict[str, tuple[Any, Any]] = {
    **{"dataset": ("{root}/pictures", "{root}/others"), "split": ("test", "train")},
    **{"data_dir": ("{root}/pictures", "{root}/again"), "limit": (None, 3)},
    **{"labels": ("{root}/labels.csv", "{root}/more.csv"), "skip_unlabelled": (False, True)},
    **{"image_column": ("front", "back"), "label_column": ("kind", "sort")},
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
