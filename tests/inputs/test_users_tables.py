"""What users write in tables is read by one reader: a tree, class names, labels, in each format.

No field vanishes or becomes something else; whatever is wrong is refused in one line with the file.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers.given import load_folder, make_folder
from helpers.refusals import refused

from bench.inputs.class_names import name_classes
from bench.inputs.hierarchy import read_hierarchy
from bench.inputs.prompts import from_file

CLASSES = ("cat", "dog", "car")


def read_tree(file: Path) -> Any:
    return read_hierarchy(file, CLASSES)


def read_names(file: Path) -> Any:
    return name_classes(CLASSES, "It", declared=False, file=file).names


def read_labels(file: Path) -> Any:
    folder = make_folder(file.parent / "images", "1.png", "2.png", "3.png")
    split = load_folder(folder, labels=str(file))
    return split.classes, split.labels, split.sample_ids


def read_prompts(file: Path) -> Any:
    return from_file(file, CLASSES).pairs


TREE = "".join(f'[[node]]\nnode = "{name}"\nparent = "animal"\n' for name in CLASSES)
LINES = "".join(
    f'{{"file_name": "{n}.png", "label": "{name}"}}\n' for n, name in ((2, "b"), (3, "c"))
)
# The text of a table, with a cell whose words become a prompt or a class, and its reader.
TABLES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "tree.csv": ("node,parent,words\nanimal,,CELL\ncat,animal,\ndog,animal,\ncar,,\n", read_tree),
    "tree.toml": (f'{TREE}[[node]]\nnode = "animal"\nwords = CELL\n', read_tree),
    "names.csv": ("cat,CELL\ndog,a hound\ncar,an auto\n", read_names),
    "names.json": ('{"cat": CELL, "dog": "a hound", "car": "an auto"}', read_names),
    "names.txt": ("cat CELL\ndog a hound\ncar an auto\n", read_names),
    "list.txt": ("CELL\na hound\nan auto\n", read_names),
    "labels.csv": ("file_name,label\n1.png,CELL\n2.png,b\n3.png,c\n", read_labels),
    "labels.jsonl": (f'{{"file_name": "1.png", "label": CELL}}\n{LINES}', read_labels),
    "prompts.csv": (
        "prompt,classname,classidx\nCELL,cat,0\na hound,dog,1\nan auto,car,2\n",
        read_prompts,
    ),
}
TYPED = ("tree.toml", "names.json", "labels.jsonl")
CSV = tuple(name for name in TABLES if name.endswith(".csv"))
WITH_HEAD = {*CSV} - {"names.csv"}


def make(name: str, cell: str, folder: Path) -> Path:
    """Write the table with a cell, which is quoted where the format has types."""
    text = TABLES[name][0].replace("CELL", json.dumps(cell) if name in TYPED else cell)
    file = folder / name
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return file


Edit = Callable[[Path], object]


def cell(words: str) -> Edit:
    return lambda file: make(file.name, words, file.parent)


def value(text: str) -> Edit:
    """Put a value of another type in the place of a cell."""
    return lambda file: file.write_text(TABLES[file.name][0].replace("CELL", text))


def column_twice(file: Path) -> None:
    head, _, rest = file.read_text().partition("\n")
    lines = [line + "," for line in rest.splitlines()]
    file.write_text("\n".join([f"{head},{head.rpartition(',')[2]}", *lines]))


def line_twice(file: Path) -> None:
    """Repeat a line, a key, or, in a list, a name."""
    text = file.read_text()
    if file.suffix == ".json":
        text = text.replace("{", '{"dog": "another", ')
    elif file.suffix == ".toml":
        text += 'words = "another"\n'
    elif file.name == "list.txt":
        text = text.replace("a hound", "A  round one")
    else:
        text += text.splitlines()[-1] + "\n"
    file.write_text(text)


def replaced(put: Edit) -> Edit:
    def edit(file: Path) -> None:
        file.unlink()
        put(file)

    return edit


EDITS: dict[str, tuple[Iterable[str], Edit]] = {
    **{
        f"a cell with {kind}": (TABLES, cell(words))
        for kind, words in {
            "an escape code": "a \x1b[31mred one",
            "a vertical tab": "a\x0bb",
            "a control character at the end": "a round one\x0b",
            "a line separator": "a\u2028b",
            "a next line": "a\x85b",
            "a file separator": "a\x1cb",
            "a zero": "a\0b",
            "half a pair": "a\ud800b",
        }.items()
    },
    **{
        f"a cell that is {kind}": (TYPED, value(text))
        for kind, text in {
            "a list": '["a"]',
            "a list of lists": "[[]]",
            "true": "true",
            "half a number": "1.5",
            "a table": '{"a": "b"}',
            "NaN": "NaN",
            "5,000 digits": "9" * 5000,
            "deep": "[" * 100_000,
            "nothing": "",
        }.items()
    },
    **{
        f"a line with {kind}": (CSV, cell(words))
        for kind, words in {
            "an unquoted comma": "a round one, such as six",
            "two unquoted commas": "a round one, such as six, or eight",
            "a quote that does not end": '"a round one',
            "a quote inside": '"a "round" one"',
        }.items()
    },
    "a column twice": (WITH_HEAD, column_twice),
    "a line that is cut": (WITH_HEAD, lambda file: file.write_text(f"{file.read_text()}cat\n")),
    "a line twice": (TABLES, line_twice),
    **{
        f"a file that is {kind}": (TABLES, edit)
        for kind, edit in {
            "not there": Path.unlink,
            "a folder": replaced(Path.mkdir),
            "a pipe": replaced(os.mkfifo),
            "empty": lambda file: file.write_bytes(b""),
            "white space": lambda file: file.write_bytes(b" \n\n"),
            "in another encoding": lambda file: file.write_text(file.read_text(), "utf-16"),
            "followed by bytes": lambda file: file.write_bytes(file.read_bytes() + b"\xff\xfe"),
            "a pickle": lambda file: file.write_bytes(b"\x80\x04K\x01."),
        }.items()
    },
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for kind, (names, _) in EDITS.items() for name in sorted(names)]
)
def test_a_damaged_table_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    file = make(name, "a round one", tmp_path)
    EDITS[kind][1](file)
    with refused() as caught:
        TABLES[name][1](file)
    message = str(caught.value)
    assert name in message or message.startswith("It"), message  # the classes that it names
    assert "\n" not in message and len(message) < 500, message


@pytest.mark.parametrize("name", TABLES)
def test_marks_and_ends_of_lines_change_nothing(name: str, tmp_path: Path) -> None:
    file = make(name, "a round one", tmp_path)
    text, read = file.read_bytes(), TABLES[name][1]
    wanted = read(file)
    assert "a round one" in str(wanted)
    for other in (
        b"\xef\xbb\xbf" + text,
        text.replace(b"\n", b"\r\n"),
        text.removesuffix(b"\n"),
        *([text.replace(b"\n", b"\n\n")] if not name.endswith("toml") else ()),
        *([text.replace(b"\n", b"\r")] if name.endswith(("csv", "txt")) else ()),
    ):
        file.write_bytes(other)
        assert read(file) == wanted


@pytest.mark.parametrize("name", CSV)
def test_a_quoted_comma_is_part_of_the_text(name: str, tmp_path: Path) -> None:
    quoted = '"a round one, such as ""six"""'
    with_space, without = (
        TABLES[name][1](make(name, text, tmp_path)) for text in (f" {quoted}", quoted)
    )
    assert with_space == without and 'a round one, such as "six"' in str(without)


def test_numbers_are_names_of_classes(tmp_path: Path) -> None:
    nodes = "".join(f"[[node]]\nnode = {n}\nparent = 7\n" for n in (0, 1))
    (tmp_path / "tree.toml").write_text(f"{nodes}[[node]]\nnode = 7\nwords = 8\n")
    assert read_hierarchy(tmp_path / "tree.toml", ("0", "1")).words == ("8",)
