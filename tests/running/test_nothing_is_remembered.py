"""A process is told what data and classes say now, whatever an earlier process was told."""

from __future__ import annotations

import io
import json
import os
import tarfile
from itertools import product
from pathlib import Path

from helpers.command import bench_process, python
from helpers.given import picture
from helpers.plugins import install

PATCHED = """
import dataclasses, json, sys
import bench

_, state, first, second = sys.argv
if state == "patched":
    bench.prompts(first)  # imports the reader
    from bench_plugins.datasets.folder import Folder

    load, classes = Folder.load, ["dog", "cat", "owl"]
    Folder.load = lambda *call, **named: dataclasses.replace(
        load(*call, **named), class_names=lambda: classes
    )
print(json.dumps(bench.prompts(second)))
"""
PLUGIN = """
from bench.contracts.hooks import hookimpl

@hookimpl
def register_datasets(register):
    names = ("cat", "dog")
    register("shipped", target="shipped_images:Shipped", classes=names, stored_in="package")
"""
READER = """
from itertools import product
from pathlib import Path
import datasets

class Shipped:
    def load(self, split, data_dir):
        images = [Path(__file__).with_name("shipped.png").read_bytes()] * 2
        rows = datasets.Dataset.from_dict({"image": images, "label": [0, 1]})
        return rows.cast_column("image", datasets.Image())
"""


def run_id(data: str, folder: Path, **variables: str) -> str:
    """Run in a process of its own, and return the id of the run."""
    results = ("--results", str(folder / "results"), "--json")
    done = bench_process("run", data, "--backbone", "random", *results, **variables)
    assert done.code == 0, done.err
    identity: str = json.loads(done.out)["run_id"]
    return identity


def test_class_names_beside_a_tar_are_read_each_time(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for n in range(2):
        members |= {f"{n}.png": picture(n)["bytes"], f"{n}.cls": str(n).encode()}
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data/test.tar", "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    names = tmp_path / "data/classnames.txt"
    ids = []
    for words in ("cat\ndog", "dog\ncat"):
        names.write_text(words)
        ids.append(run_id(str(tmp_path / "data/test.tar"), tmp_path))
    assert ids[0] != ids[1]


def test_a_class_patched_in_one_process_answers_there_alone(tmp_path: Path) -> None:
    folders = tmp_path / "first", tmp_path / "second"
    for folder, name in product(folders, ("cat", "dog")):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes(picture(len(name))["bytes"])
    patched, plain = (json.loads(python(PATCHED, s, *folders).out) for s in ("patched", "plain"))
    assert [text.split()[-1] for text in patched] == ["dog", "cat", "owl"]
    assert [text.split()[-1] for text in plain] == ["cat", "dog"]


def test_a_picture_replaced_inside_a_plugin_s_package_is_another_one(tmp_path: Path) -> None:
    install(tmp_path, "shipped", PLUGIN)
    (tmp_path / "shipped_images.py").write_text(READER)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    variables = {"PYTHONPATH": path, "BENCH_LOAD_PLUGINS": "shipped"}
    ids = []
    for shade in (10, 200):
        (tmp_path / "shipped.png").write_bytes(picture(shade)["bytes"])
        ids.append(run_id("shipped", tmp_path, **variables))
    assert ids[0] != ids[1]
