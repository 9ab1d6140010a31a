"""A tree of classes is read from CSV and TOML; what is no tree of these classes is refused."""

from pathlib import Path

import pytest
from helpers.refusals import refused

from bench.inputs.hierarchy import Hierarchy, read_hierarchy

CLASSES = ("cat", "big dog", "car")


def read(tmp_path: Path, text: str, name: str = "tree.csv") -> Hierarchy:
    (tmp_path / name).write_text(text)
    return read_hierarchy(tmp_path / name, CLASSES)


def test_a_tree_is_read_from_csv_and_toml(tmp_path: Path) -> None:
    csv = "node,parent,words\nanimal,,an animal\ncat,animal,\nBIG Dog,animal,\ncar,,\n"
    toml = '[[node]]\nnode = "animal"\nwords = "an animal"\n' + "".join(
        f'[[node]]\nnode = "{name}"\nparent = "{parent}"\n'
        for name, parent in (("cat", "animal"), ("big dog", "animal"), ("car", ""))
    )
    expected = Hierarchy(("an animal",), (3, 3, -1, -1))
    assert read(tmp_path, csv) == expected == read(tmp_path, toml, "tree.toml")


def test_a_chain_of_single_children_is_one_step(tmp_path: Path) -> None:
    text = (
        "node,parent\nthing,\nliving,thing\nanimal,living\ncat,animal\nbig dog,animal\n"
        "machine,thing\nvehicle,machine\ncar,vehicle\n"
    )
    assert read(tmp_path, text) == Hierarchy(("thing", "animal"), (4, 4, 3, -1, 3))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ("cat,\nbig dog,\n", "'car'"),
        ("cat,pet\nbig dog,\ncar,\n", "'pet'"),
        ("pet,\ncat,pet\nbig dog,pet\ncar,\ncat,\n", "'cat'"),
        ("cat,\nbig dog,\ncar,\ncar,\n", "'car'"),
        ("cat,car\nbig dog,\ncar,\n", "'car'"),
        ("a,b\nb,a\ncat,a\nbig dog,a\ncar,\n", "'a'"),
        ("a,b\nb,c\nc,b\ncat,a\nbig dog,a\ncar,\n", "'b'"),
        ("a,\ncat,\nbig dog,\ncar,\n", "'a'"),
        (",\ncat,\nbig dog,\ncar,\n", "tree.csv"),
    ],
)
def test_what_is_no_tree_of_these_classes_is_refused(
    rows: str, problem: str, tmp_path: Path
) -> None:
    with refused(problem):
        read(tmp_path, f"node,parent\n{rows}")


def test_other_files_are_refused(tmp_path: Path) -> None:
    for text, name in (
        ("name,parent\n", "tree.csv"),
        ("nodes = 3\n", "tree.toml"),
        ("[[node]]\nnode = 'a'\nchild = 'b'\n", "tree.toml"),
    ):
        with refused(name, "node"):
            read(tmp_path, text, name)
