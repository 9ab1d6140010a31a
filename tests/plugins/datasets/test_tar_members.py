"""A tar gives all of its members, or is refused: no damage loses an image without a word."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench
from helpers.given import picture

from bench.discovery.loading import load_plugins
from bench.errors import BenchWarning, UserError
from bench.inputs.data import DataSource, load_split
from bench.inputs.split import Split
from bench_plugins.datasets._tars import read_tar

MEMBERS = {
    f"{number}.{kind}": picture(40 * number)["bytes"] if kind == "png" else b"%d" % (number % 2)
    for number in range(6)
    for kind in ("png", "cls")
}
BLOCK = 512


def member(name: str, content: bytes = b"", size: int | None = None, **fields: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content) if size is None else size
    for field, value in fields.items():
        setattr(info, field, value)
    header = info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")
    return header + content + bytes(-len(content) % BLOCK)


WHOLE = b"".join(member(name, content) for name, content in MEMBERS.items()) + bytes(2 * BLOCK)
STARTS = [place for place in range(0, len(WHOLE), BLOCK) if WHOLE[place + 257 :][:5] == b"ustar"]


def write(folder: Path, content: bytes) -> Path:
    path = folder / "x.tar"
    path.write_bytes(content)
    return path


def load(path: Path, **parameters: Any) -> Split:
    spec = load_plugins().datasets.get("folder")
    return load_split(DataSource(spec, str(path), parameters))


@pytest.mark.parametrize("start", STARTS)
def test_one_flipped_bit_of_a_header_is_found(start: int, tmp_path: Path) -> None:
    assert len(STARTS) == 12
    damaged = bytearray(WHOLE)
    damaged[start + 124] ^= 1  # the first digit of the size
    with pytest.raises(UserError, match=r"x\.tar"):
        list(read_tar(write(tmp_path, bytes(damaged))))


DAMAGE: dict[str, tuple[bytes, str]] = {
    "a block of zeros": (
        WHOLE[: STARTS[6]] + bytes(BLOCK) + WHOLE[STARTS[6] + BLOCK :],
        "data follows the end of the archive",
    ),
    "two tars": (WHOLE + WHOLE, "data follows the end of the archive"),
    "a byte at the end": (WHOLE + b"x", "data follows the end of the archive"),
    "no end": (WHOLE[: -2 * BLOCK], "the blocks that end a tar are missing"),
    "a negative size": (member("9.png", size=-512) + WHOLE, "has a negative size"),
    "a sparse member": (member("9.png", type=tarfile.GNUTYPE_SPARSE) + WHOLE, "is sparse"),
    "a sparse member of POSIX": (
        member("h", b"22 GNU.sparse.major=1\n", type=tarfile.XHDTYPE) + WHOLE,
        "is sparse",
    ),
    "a size that is not a number": (
        member("h", b"11 size=-9\n", type=tarfile.XHDTYPE) + WHOLE,
        "invalid size .-9.",
    ),
    "an extended header that is cut": (
        member("h", b"99 path=2.png\n", type=tarfile.XHDTYPE) + WHOLE,
        "an extended header is damaged",
    ),
    "a large name": (
        member("h", bytes(2_000_000), type=tarfile.GNUTYPE_LONGNAME) + WHOLE,
        "more than 1,000,000 bytes",
    ),
    "a member beyond the end": (member("9.png", size=10**12) + WHOLE, "unexpected end of data"),
    "a name twice": (
        member("1.png", b"x") + member("1.cls", b"1") + WHOLE,
        "'1.png' occurs twice",
    ),
    "two labels": (member("0.png", b"x") + member("0.b.cls", b"1") + WHOLE, "occurs twice"),
    "a link": (member("9.png", type=tarfile.SYMTYPE, linkname="/etc/passwd") + WHOLE, "is a link"),
    "a hard link": (member("9.png", type=tarfile.LNKTYPE, linkname="0.png") + WHOLE, "is a link"),
    "a name that is not UTF-8": (member("\udcff.png", MEMBERS["0.png"]) + WHOLE, "not UTF-8"),
    "a label of bytes": (member("9.png", b"x") + member("9.cls", b"\xff") + WHOLE, "is not UTF-8"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_with_the_name_of_the_tar(case: str, tmp_path: Path) -> None:
    content, said = DAMAGE[case]
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=said) as error:
        load(path)
    assert "x.tar" in str(error.value) and "\n" not in str(error.value)


def test_padding_long_names_and_extended_headers_are_read(tmp_path: Path) -> None:
    long = "f/" * 80 + "7"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=form) as tar:
            for name in (f"{long}.png", f"{long}.cls", f"{long}é.png"):
                info = tarfile.TarInfo(name)
                info.size = 1
                tar.addfile(info, io.BytesIO(b"x"))
        path = write(tmp_path, content.getvalue() + bytes(100 * BLOCK))
        assert dict(read_tar(path)) == {
            long: {"png": b"x", "cls": b"x"},
            f"{long}é": {"png": b"x"},
        }


def test_a_file_of_zeros_that_takes_no_place_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    with path.open("r+b") as file:
        file.truncate(10**12)
    with pytest.raises(UserError, match="100,000,000 bytes"):
        load(path)


def test_large_files_are_not_read_into_memory(tmp_path: Path) -> None:
    path = write(tmp_path, member("9.png", size=10**11))
    with path.open("r+b") as file:
        file.truncate(10**12)  # takes no place on the disk
    with pytest.raises(UserError, match=r"'9' .*200,000,000 bytes"):
        load(path)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (b'{"label": "a", "label": "b"}', "the key 'label' occurs twice"),
        (b'{"label": NaN}', "NaN is not a number in JSON"),
        (b'{"label": 1.5}', r"the label is 1\.5; expected a text or a whole number"),
        (b'{"label": true}', "the label is True; expected a text or a whole number"),
        (b'{"label": "a\\u000bb"}', "has control characters"),
        (b'{"label": "\\ud800"}', "is not Unicode text"),
        (b'{"label": "a", "id": null}', "the id is None; expected a text or a whole number"),
        (b'{"label": "a", "id": [1]}', r"the id is \[1\]; expected a text or a whole number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"label": ' + b"9" * 5000 + b"}", "is not JSON"),
    ],
)
def test_a_fact_that_is_no_name_is_refused(facts: bytes, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, member("9.png", MEMBERS["0.png"]) + member("9.json", facts) + WHOLE)
    with pytest.raises(UserError, match=said):
        load(path, **({"id_column": "id"} if b'"id"' in facts else {}))


CLASS_NAMES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (lambda path: path.symlink_to(Path(__file__)), "leads out of the folder"),
    "a pipe": (os.mkfifo, "is not a regular file"),
    "equal names": (lambda path: path.write_text("cat\nCat\n"), "have the same name"),
    "control characters": (lambda path: path.write_text("cat\nd\x1bog\n"), "control character"),
    "not UTF-8": (lambda path: path.write_bytes(b"\xff"), "is not a text file in UTF-8"),
}


@pytest.mark.parametrize("case", CLASS_NAMES)
def test_class_names_beside_a_tar_are_checked(case: str, tmp_path: Path) -> None:
    make, said = CLASS_NAMES[case]
    make(tmp_path / "classnames.txt")
    with pytest.raises(UserError, match=said):
        load(write(tmp_path, WHOLE))


def test_class_names_of_the_folder_above_are_named_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    (tmp_path / "test").mkdir()
    path = write(tmp_path / "test", WHOLE)
    with pytest.warns(BenchWarning, match="lies outside the folder .* and is not read"):
        assert load(path).classes == ("0", "1")
    done = bench("prompts", path, "--class-names", tmp_path / "classnames.txt", "--json")
    assert [row["class"] for row in done.json] == ["cat", "dog"]
