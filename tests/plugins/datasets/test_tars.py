"""WebDataset tars: whole ones are read without running anything, damaged ones are named."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.given import load_folder as load
from helpers.given import picture, write_tar
from helpers.refusals import refused, warned

from bench_plugins.datasets._tars import read_tar

PICTURES = [picture(shade)["bytes"] for shade in (10, 20, 30, 40)]


def test_a_label_is_a_class_file_a_key_or_a_text(tmp_path: Path) -> None:
    members = {
        "a/1.png": PICTURES[0],
        "a/1.cls": b"cat",
        "a/1.pyd": b"\x80\x04never read",
        "a/2.jpg.png": PICTURES[1],
        "a/2.json": b'{"label": "dog", "kind": "x"}',
        "a/3.txt": b"cat\n",
        "a/3.webp": PICTURES[2],
        "captions.txt": b"no image",
    }
    split = load(write_tar(tmp_path / "x.tar", members))
    assert split.classes == ("cat", "dog") and split.labels == (0, 1, 0)
    assert split.sample_ids == ("a/1", "a/2", "a/3")


def test_tars_of_one_name_in_several_folders_have_ids_of_their_own(tmp_path: Path) -> None:
    for place, label in (("b/x.tar", b"cat"), ("a/x.tar", b"dog"), ("a/deep/x.tar", b"cat")):
        write_tar(tmp_path / place, {"1.png": PICTURES[len(place) % 4], "1.cls": label})
    assert load(tmp_path).sample_ids == ("a/deep/x.tar:1", "a/x.tar:1", "b/x.tar:1")
    assert load(tmp_path).labels == (0, 1, 0)


def test_a_mask_is_not_the_image_and_what_has_no_image_or_label_is_left_out_aloud(
    tmp_path: Path,
) -> None:
    members = {
        **{"1.seg.png": PICTURES[1], "1.png.webp": PICTURES[2], "1.jpg": PICTURES[0]},
        **{"1.cls": b"cat", "2.png": PICTURES[1], "3.png": PICTURES[2], "3.txt": b"dog"},
        **{"4.avif": PICTURES[3], "4.cls": b"cat", "notes.txt": b"no label"},
    }
    path = write_tar(tmp_path / "x.tar", members)
    with warned("1 label without an image (4)"):
        split = load(path, skip_unlabelled=True)
    assert (split.sample_ids, split.labels) == (("1", "3"), (0, 1))
    assert [row["image"]["bytes"] for row in split.rows] == [PICTURES[0], PICTURES[2]]


# What is damaged: a tar gives all of its members, or is refused.

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


def whole(folder: Path, content: bytes = WHOLE, size: int | None = None) -> Path:
    """Write a tar; with a size, its end takes no place on the disk."""
    path = folder / "x.tar"
    path.write_bytes(content)
    os.truncate(path, len(content) if size is None else size)
    return path


@pytest.mark.parametrize("start", STARTS)
def test_one_flipped_bit_of_a_header_is_found(start: int, tmp_path: Path) -> None:
    assert len(STARTS) == 12
    damaged = bytearray(WHOLE)
    damaged[start + 124] ^= 1  # the first digit of the size
    with refused("x.tar"):
        list(read_tar(whole(tmp_path, bytes(damaged))))


def extended(content: bytes) -> bytes:
    return member("h", content, type=tarfile.XHDTYPE) + WHOLE


def labelled(name: str, content: bytes) -> bytes:
    """Add an image with this label, or these facts."""
    return member("9.png", MEMBERS["0.png"]) + member(name, content) + WHOLE


DAMAGE: dict[str, bytes] = {
    **{f"cut at {kept}": WHOLE[:kept] for kept in (100, 600, 1024, 1600, 2048)},
    "a block of zeros": WHOLE[: STARTS[6]] + bytes(BLOCK) + WHOLE[STARTS[6] + BLOCK :],
    "two tars": WHOLE + WHOLE,
    "a byte at the end": WHOLE + b"x",
    "no end": WHOLE[: -2 * BLOCK],
    "a negative size": member("9.png", size=-512) + WHOLE,
    "a sparse member": member("9.png", type=tarfile.GNUTYPE_SPARSE) + WHOLE,
    "a sparse member of POSIX": extended(b"22 GNU.sparse.major=1\n"),
    "a size that is not a number": extended(b"11 size=-9\n"),
    "an extended header that is cut": extended(b"99 path=2.png\n"),
    "a large name": member("h", bytes(2_000_000), type=tarfile.GNUTYPE_LONGNAME) + WHOLE,
    "a member beyond the end": member("9.png", size=10**12) + WHOLE,
    "a name twice": member("1.png", b"x") + member("1.cls", b"1") + WHOLE,
    "two labels": member("0.png", b"x") + member("0.b.cls", b"1") + WHOLE,
    "two images": member("9.png", b"x") + member("9.jpg", b"") + member("9.cls", b"1") + WHOLE,
    **{
        name: member("9.png", type=kind, linkname="0.png") + member("9.cls", b"1") + WHOLE
        for name, kind in (("a link", tarfile.SYMTYPE), ("a hard link", tarfile.LNKTYPE))
    },
    "a name that is not UTF-8": member("\udcff.png", MEMBERS["0.png"]) + WHOLE,
    "a label of bytes": labelled("9.cls", b"\xff"),
    "a large number": labelled("9.cls", b"9" * 20),
    "no label": member("9.png", MEMBERS["0.png"]) + WHOLE,
    "facts without a label": labelled("9.json", b'{"size": 4}'),
    **{
        f"the facts {facts[:20]!r}": labelled("9.json", facts)
        for facts in (
            b'{"label": null}',
            b'{"label": ["cat"]}',
            b'{"label": "a", "label": "b"}',
            b'{"label": NaN}',
            b'{"label": 1.5}',
            b'{"label": true}',
            b'{"label": "a\\u000bb"}',
            b'{"label": "\\ud800"}',
            b"{",
            b"[" * 100_000,
            b'{"label": ' + b"9" * 5000 + b"}",
        )
    },
}


MEMBER = {  # of the tar, which the refusal names too
    **dict.fromkeys(("a negative size", "a sparse member", "a sparse member of POSIX"), "byte"),
    **dict.fromkeys(("a link", "a hard link", "two images"), "9."),
    **{"a name twice": "1.png", "two labels": "0.png", "a label of bytes": "9.cls"},
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_with_the_name_of_the_tar(case: str, tmp_path: Path) -> None:
    is_stated = case.startswith("the facts") and "null" not in case
    with refused("x.tar", MEMBER.get(case, "9" if is_stated else "")) as error:
        load(whole(tmp_path, DAMAGE[case]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [WHOLE, member("9.png", size=10**11)])
def test_zeros_that_take_no_place_are_not_read_to_their_end(content: bytes, tmp_path: Path) -> None:
    with refused("x.tar", "00,000,000 bytes"):
        load(whole(tmp_path, content, 10**12))


def test_columns_of_facts(tmp_path: Path) -> None:
    facts = b'{"label": "a", "id": %b}'
    for wrong in (b"null", b"[1]"):
        path = whole(tmp_path, labelled("9.json", facts % wrong))
        with refused("9.json", "id"):
            load(path, id_column="id")
    with refused("9.json", "'kind'"):
        load(path, label_column="kind")
    with refused("x-{0..1}.tar"):
        load(tmp_path / "x-{0..1}.tar")


@pytest.mark.parametrize("names", [b"cat\nCat\n", b"cat\nd\x1bog\n", b"\xff"])
def test_class_names_beside_a_tar_are_checked(names: bytes, tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_bytes(names)
    with refused("classnames.txt"):
        load(whole(tmp_path))


def test_padding_long_names_and_extended_headers_are_read(tmp_path: Path) -> None:
    long = "f/" * 80 + "7"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=form) as tar:
            for name in (f"{long}.png", f"{long}.cls", f"{long}é.png"):
                info = tarfile.TarInfo(name)
                info.size = 1
                tar.addfile(info, io.BytesIO(b"x"))
        path = whole(tmp_path, content.getvalue() + bytes(100 * BLOCK))
        assert dict(read_tar(path)) == {
            long: {"png": b"x", "cls": b"x"},
            f"{long}é": {"png": b"x"},
        }


def test_class_names_of_the_folder_above_are_named_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    (tmp_path / "test").mkdir()
    path = Path(shutil.copy(whole(tmp_path), tmp_path / "test"))
    with warned("classnames.txt"):
        assert load(path).classes == ("0", "1")
    done = bench("prompts", path, "--class-names", tmp_path / "classnames.txt", "--json")
    assert [row["class"] for row in done.json] == ["cat", "dog"]
