"""One small source of each kind of data, and how one is refused."""

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from helpers.given import write_parquet, write_tar
from helpers.refusals import refused

from bench.contracts.dataset import StoredImage
from bench.contracts.specs import DatasetSpec
from bench.inputs.data import DataSource, load_split
from bench.running.parts.data import find_dataset
from bench.running.parts.settings import make_config

Settings = dict[str, Any]
BIRDS = 'name = "birds"\nsource = "pictures"\nclasses = ["robin", "house finch"]\n'


def pixels(shade: int, side: int = 6) -> bytes:
    """Return a picture whose bytes depend on no library."""
    return b"P6\n%d %d\n255\n" % (side, side) + bytes(
        (shade * 29 + place) % 256 for place in range(3 * side * side)
    )


def stored(shade: int) -> StoredImage:
    return {"bytes": pixels(shade), "path": None}


def pictures(root: Path, *names: str) -> Path:
    for shade, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(pixels(shade))
    return root


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return file


def tar(file: Path, **members: bytes) -> Path:
    return write_tar(file, {name.replace("_", "."): content for name, content in members.items()})


def table(root: Path, text: str, name: str = "metadata.csv") -> Settings:
    folder = pictures(root / "photos", "1.ppm", "2.ppm", "3.ppm")
    return {"dataset": str(write(folder / name, text).parent)}


def folder(root: Path) -> Settings:
    names = "hot_dog/2.ppm", "cat/1.ppm", "cat/deep/1.ppm"
    return {"dataset": str(pictures(root / "pets", *names))}


def splits(root: Path) -> Settings:
    pictures(root / "parts", "test/b/1.ppm", "train/a/1.ppm", "train/b/1.ppm", "other/c/1.ppm")
    return {"dataset": str(root / "parts")}


def numbered_folders(root: Path) -> Settings:
    return {"dataset": str(pictures(root / "numbers", "10/a.ppm", "2/b.ppm", "0/c.ppm"))}


def csv(root: Path) -> Settings:
    return table(root, "file_name,label\n1.ppm,grand_piano\n./2.ppm, cat \n3.ppm,cat\n")


def csv_of_numbers(root: Path) -> Settings:
    return table(root, "file,class\n1.ppm,10\n2.ppm,9\n3.ppm,\n") | {"skip_unlabelled": True}


def csv_elsewhere(root: Path) -> Settings:
    file = write(root / "own.csv", "photo,kind,key\n3.ppm,x,k3\n1.ppm,y,k1\n")
    named = {"image_column": "photo", "label_column": "kind", "id_column": "key"}
    return {"dataset": str(pictures(root / "flat", "1.ppm", "3.ppm")), "labels": str(file), **named}


def tables_of_splits(root: Path) -> Settings:
    for part, label in (("train", "a"), ("test", "b")):
        pictures(root / "tables" / part, "1.ppm", "2.ppm")
        write(root / "tables" / part / "metadata.csv", f"file,label\n1.ppm,{label}\n2.ppm,c\n")
    return {"dataset": str(root / "tables")}


def captions_beside_folders(root: Path) -> Settings:
    write(root / "pets/metadata.csv", "file_name,caption\ncat/1.ppm,a cat\n")
    return folder(root)


def csv_alone(root: Path) -> Settings:
    table(root, "image,label\n2.ppm,7\n3.ppm,7\n1.ppm,3\n", "list.csv")
    return {"dataset": str(root / "photos" / "list.csv")}


def jsonl(root: Path) -> Settings:
    lines = '{"file_name": "2.ppm", "label": 1}\n\n{"label": 0, "file_name": "1.ppm"}\n'
    return table(root, lines, "metadata.jsonl")


def named_numbers(root: Path) -> Settings:
    names = write(root / "names.csv", "10,a dog\n9,a cat\n")
    return {**csv_of_numbers(root), "class_names": str(names)}


def parquet(root: Path) -> Settings:
    columns = {"image": [stored(1), stored(2), stored(1)], "label": [1, 0, 1]}
    write_parquet(root / "shards/data/test-0.parquet", columns, ["cat", "grand_piano"])
    return {"dataset": str(root / "shards")}


def parquet_of_texts(root: Path) -> Settings:
    for part, labels in (("test", ["b", "c"]), ("train", ["a", "b"])):
        columns = {"img": pa.array([stored(1), stored(2)]), "kind": labels, "key": [7, 8]}
        write_parquet(root / f"texts/{part}-0.parquet", columns)
    return {"dataset": str(root / "texts"), "id_column": "key"}


def parquet_of_paths(root: Path) -> Settings:
    pictures(root / "paths", "images/1.ppm", "images/2.ppm")
    images = [{"bytes": None, "path": f"images/{n}.ppm"} for n in (1, 2)]
    columns = {"image": images, "label": ["1", "0"], "sample_id": ["x", "y"]}
    write_parquet(root / "paths/all.parquet", columns)
    return {"dataset": str(root / "paths")}


def in_memory(root: Path) -> datasets.Dataset:
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    columns = {"image": [stored(4), stored(5), stored(4)], "label": ["b", "a", "a"]}
    return datasets.Dataset.from_dict(columns, features)


def saved(root: Path) -> Settings:
    in_memory(root).save_to_disk(str(root / "saved"))
    return {"dataset": str(root / "saved")}


def tar_of_words(root: Path) -> Settings:
    members = {"1_ppm": pixels(1), "1_cls": b" cat\n", "2_ppm": pixels(2), "2_txt": b"big_dog"}
    return {"dataset": str(tar(root / "words.tar", **members))}


def tars_of_numbers(root: Path) -> Settings:
    for part, shard, first in (("test", 0, 0), ("test", 1, 0), ("train", 0, 1)):
        members = {f"{n}_ppm": pixels(n + shard) for n in (1, 2)}
        members |= {f"{n}_cls": b"%d" % ((n + first) % 2) for n in (1, 2)}
        tar(root / f"wds/{part}/{shard}.tar", **dict(sorted(members.items())))
    write(root / "wds/classnames.txt", "cat\nbig dog\n")
    return {"dataset": str(root / "wds")}


def tars_of_json(root: Path) -> Settings:
    for shard in (0, 1):
        facts = {n: json.dumps({"class": n + 3, "key": f"k{shard}{n}"}).encode() for n in (0, 1)}
        members = {f"{n}_{kind}": pixels(n) for n in (0, 1) for kind in ("ppm",)}
        members |= {f"{n}_json": content for n, content in facts.items()}
        tar(root / f"json/{shard:03}.tar", **dict(sorted(members.items())))
    return {"dataset": str(root / "json/{000..001}.tar"), "id_column": "key"}


def torchvision_of_files(root: Path) -> Settings:
    place = root / "vision/dtd/dtd"
    pictures(place / "images", "banded/b_1.jpg", "dotted/d_1.jpg")
    write(place / "labels/test1.txt", "dotted/d_1.jpg\nbanded/b_1.jpg\n")
    return {"dataset": "torchvision:DTD", "data_dir": str(root / "vision")}


def torchvision_of_arrays(root: Path) -> Settings:
    raw = root / "arrays/MNIST/raw"
    raw.mkdir(parents=True)
    for part in ("t10k", "train"):
        images = struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(range(28)) * 56
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 2) + b"\3\1")
    return {"dataset": "torchvision:MNIST", "data_dir": str(root / "arrays")}


def declared(root: Path, more: str = "", text: str = BIRDS) -> Settings:
    if not (root / "pictures").exists():
        pictures(root / "pictures", "House_Finch/1.ppm", "robin/1.ppm")
    return {"dataset": str(write(root / "birds.toml", text + more))}


def declared_numbers(root: Path) -> Settings:
    pictures(root / "pictures", "1/1.ppm", "2/1.ppm")
    return declared(root)


def declared_columns(root: Path) -> Settings:
    columns = {"img": [stored(1), stored(2)], "kind": ["robin", "house-finch"], "key": [7, 8]}
    write_parquet(root / "pictures/test-0.parquet", {**columns, "other": ["x", "y"]})
    return declared(root, '[columns]\nimage = "img"\nlabel = "kind"\nid = "key"\n')


def declared_box(root: Path) -> Settings:
    return boxed(root, "0 0 5 6")


def boxed(root: Path, box: str) -> Settings:
    table(root, f'file,label,at\n1.ppm,robin,"1,2,3,4"\n2.ppm,house finch,{box}\n')
    (root / "photos").rename(root / "pictures")
    return declared(root, 'box = "at"\n')


def declared_groups(root: Path, groups: Sequence[str] = ("place", "year")) -> Settings:
    columns = {"image": [stored(1), stored(2)], "label": ["robin", "house-finch"]}
    more = {"place": ["land", None], "year": [7, 8]}
    write_parquet(root / "pictures/test-0.parquet", {**columns, **more})
    return declared(root, f"groups = {json.dumps(groups)}\nborder = 1\n")


LISTED = (
    'split = "test"\n[splits]\ntest = 2\n[layout]\nlists = {test = "test.txt"}\nfirst_label = 1\n'
    'line = "{file} {label} {_}"\nimages = "img/{file}.ppm"\n'
)


def listed(root: Path, lines: str = "# a\na1 2 x\nb2 1 y\n") -> Settings:
    pictures(root / "copy/img", "a1.ppm", "b2.ppm")
    write(root / "copy/test.txt", lines)
    return {**declared(root, LISTED), "data_dir": str(root / "copy")}


def tabled(root: Path, lines: str = "1,001.A/1.jpg,0,2,1,x\n2,002.B/2.jpg,1,2,0,x\n") -> Settings:
    pictures(root / "birds", "001.A/1.jpg", "002.B/2.jpg")
    head = "img_id,img_filename,y,split,place,place_filename\n"
    write(root / "birds/metadata.csv", head + lines)
    return {"dataset": "waterbirds", "data_dir": str(root / "birds")}


def truth_values(root: Path) -> Settings:
    columns = {"image": [stored(1), stored(2)], "Blond_Hair": [True, False], "Male": [False] * 2}
    write_parquet(root / "faces/test.parquet", columns)
    return {"dataset": "celeba", "data_dir": str(root / "faces")}


def regions_of_wilds(root: Path) -> Settings:
    columns = {
        "__key__": [f"s{number:07}" for number in range(3, 7)],
        "__url__": ["0.tar"] * 4,
        "cls": [40, 0, 10, 61],
        "npy": [[3, 14, 40, 0], [5, 15, 0, 0], [1, 14, 10, 0], None],  # WILDS leaves out "Other"
        "png": [stored(shade) for shade in range(4)],
    }
    write_parquet(root / "fmow/test.parquet", columns)
    return {"dataset": "fmow", "data_dir": str(root / "fmow")}


def others_left_out(root: Path) -> Settings:
    names = "alarm_clock/1.jpg", "squeegee/2.jpg", "wok/3.jpg"
    pictures(root / "net/objectnet-1.0/images", *names)
    return {"dataset": "objectnet", "data_dir": str(root / "net")}


def items(root: Path, **change: Any) -> Settings:
    pictures(root / "vg/images", "1.jpg", "2.jpg")
    boxes = {"bbox_x": 1, "bbox_y": 2, "bbox_w": 4, "bbox_h": 3}
    texts = {"true_caption": "the cat on the mat", "false_caption": "the mat on the cat"}
    record = {"relation_name": "on", **boxes, **texts}
    records = [{"image_path": "1.jpg", **record}, {"image_path": "2.jpg", **record, **change}]
    write(root / "vg/visual_genome_relation.json", json.dumps(records))
    return {"dataset": "aro-relation", "data_dir": str(root / "vg")}


def items_of_parts(root: Path) -> Settings:
    pictures(root / "crepe/val2017", "1.jpg", "2.jpg")
    parts = ("add_att", "add_obj", "replace_att", "replace_obj")
    for part in (*parts, "replace_rel", "swap_att", "swap_obj"):
        record = {"filename": "1.jpg", "caption": f"a cat {part}", "negative_caption": "a dog"}
        write(root / f"crepe/data/{part}.json", json.dumps({"0": record}))
    return {"dataset": "sugarcrepe", "data_dir": str(root / "crepe")}


def items_of_paths(root: Path) -> Settings:
    name = "data/controlled_images/mug_on_table.jpeg"
    texts = ["a mug on a table", "a mug under a table"]
    records = [{"image_path": name, "caption_options": texts}]
    write(root / "up/data/controlled_images_dataset.json", json.dumps(records))
    return {"dataset": "whatsup", "data_dir": str(pictures(root / "up", name))}


def items_of_parquet(root: Path) -> Settings:
    columns = {
        "id": [7, 8],
        **{f"image_{n}": pa.array([stored(n), stored(n + 2)]) for n in (0, 1)},
        **{"caption_0": ["a b", "c d"], "caption_1": ["b a", "d c"]},
        "collapsed_tag": ["Object", "Relation"],
    }
    write_parquet(root / "wino/data/test-0.parquet", columns)
    return {"dataset": "winoground", "data_dir": str(root / "wino")}


def land(root: Path) -> Settings:
    from bench_plugins.datasets import UCMERCED_PHRASES

    names = [f"{name.replace(' ', '')}/{n}.ppm" for name in UCMERCED_PHRASES for n in range(5)]
    return {"dataset": "ucmerced", "data_dir": str(pictures(root / "land/Images", *names).parent)}


SOURCES: dict[str, Callable[[Path], Any]] = {
    function.__name__: function
    for function in (
        *(folder, splits, numbered_folders, csv, csv_of_numbers, csv_elsewhere, csv_alone, jsonl),
        *(tables_of_splits, captions_beside_folders, named_numbers, parquet, parquet_of_texts),
        *(parquet_of_paths, saved, in_memory, declared_columns, truth_values, regions_of_wilds),
        *(tar_of_words, tars_of_numbers, tars_of_json, torchvision_of_files),
        *(torchvision_of_arrays, declared, declared_numbers, declared_box, declared_groups),
        *(listed, tabled, others_left_out, items, items_of_parts, items_of_paths),
        *(items_of_parquet, land),
    )
}


# Sources that are refused.

Source = Callable[[Path], Settings | DatasetSpec]
Cell = tuple[Source, str]
"""What makes a source, and what the refusal names."""


def assert_refused(cell: Cell, root: Path) -> None:
    """Check that data is refused in one line, as a run would load it."""
    source, named = cell
    with refused(named) as caught:
        found = source(root)
        if isinstance(found, DatasetSpec):
            load_split(DataSource(found))
        else:
            settings = {name: value for name, value in found.items() if value is not None}
            config = make_config({"backbone": "random", **settings})
            load_split(find_dataset(config), config.split)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 700 and "secret" not in text
