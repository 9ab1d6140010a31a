"""`bench check-data` says everything that is wrong with a dataset, and nothing of a good one."""

from pathlib import Path

from helpers.command import bench
from helpers.given import make_folder
from PIL import Image


def test_a_good_dataset_has_no_findings(tmp_path: Path) -> None:
    """Nor has one with a readme beside the images."""
    folder = make_folder(tmp_path / "data", "cat/1.png", "dog/2.png")
    done = bench("check-data", folder)
    assert done.code == 0 and "2 classes" in done.out and "Nothing is wrong" in done.out
    assert bench("check-data", folder, "--json").json["findings"] == []
    for name in ("README", "LICENSE", "README.md", "cat/notes.txt", "paper.pdf"):
        (folder / name).write_text("These are photographs.")
    done = bench("check-data", folder)
    assert done.code == 0 and "Nothing is wrong" in done.out
    (folder / "cat" / "3.heic").write_bytes(b"an image that is not read")
    found = bench("check-data", folder, "--json")
    assert found.code == 4 and "1 file of other types (.heic)" in found.json["findings"][0]["said"]


def test_the_check_of_a_dataset_that_was_never_loaded_does_not_ask_for_itself(
    tmp_path: Path,
) -> None:
    make_folder(tmp_path / "copy", "robin/1.png", "wren/2.png")
    (tmp_path / "birds.toml").write_text(
        'name = "birds"\nsource = "copy"\nclasses = ["robin", "wren"]\nunverified = true\n'
    )
    assert bench("check-data", tmp_path / "birds.toml").code == 0


def test_everything_that_is_wrong_is_said(tmp_path: Path) -> None:
    names = ["test/n01440764/1.png", "test/class_7/2.png", "test/dog/3.png", "train/dog/4.png"]
    folder = make_folder(tmp_path / "data", *names, "train/class_7/5.png", "train/n01440764/6.png")
    (folder / "test/zebra").mkdir()
    for copy in ("test/zebra/1.png", "test/n01440764/again.png", "train/dog/1.png"):
        (folder / copy).write_bytes((folder / names[0]).read_bytes())
    (folder / "test/dog/3.png").write_bytes(b"no image")
    make_folder(folder, "train/cat/7.png")
    done = bench("check-data", folder, "--json")
    found = {(one["kind"], one["split"]): one for one in done.json["findings"]}
    assert done.code == 4 and done.json["splits"] == {"test": 5, "train": 5}
    assert found["unreadable", "test"]["images"] == 1
    assert "dog/3.png" in found["unreadable", "test"]["said"]
    assert found["duplicates", "test"]["images"] == 1  # the same class
    assert found["conflict", "test"]["images"] == 1  # two classes
    assert "dog/1.png is n01440764/1.png of test" in found["across", "train"]["said"]
    assert "n01440764" in found["names", "test"]["said"]
    assert "cat" in found["empty", "test"]["said"] and "zebra" in found["empty", "train"]["said"]
    assert "is wrong" in bench("check-data", folder).out


def test_counts_and_checksums_are_compared(tmp_path: Path) -> None:
    make_folder(tmp_path / "copy", "robin/1.png", "wren/2.png")
    (tmp_path / "copy/birds.zip").write_bytes(b"not it")
    (tmp_path / "birds.toml").write_text(
        'name = "birds"\nsource = "copy"\nclasses = ["robin", "wren"]\nsplit = "all"\n'
        '[splits]\nall = 3\n[checksums]\n"birds.zip" = "md5:' + "0" * 32 + '"\n'
    )
    done = bench("check-data", tmp_path / "birds.toml", "--data-dir", tmp_path / "copy", "--json")
    kinds = {one["kind"]: one["said"] for one in done.json["findings"]}
    assert "2 images, but 3 are declared" in kinds["count"] and "birds.zip has" in kinds["checksum"]


def test_all_images_are_not_checked_again_beside_their_splits(tmp_path: Path) -> None:
    make_folder(tmp_path / "copy", "test/robin/1.png", "test/wren/2.png", "train/robin/3.png")
    make_folder(tmp_path / "copy", "train/wren/4.png")
    (tmp_path / "birds.toml").write_text(
        'name = "birds"\nsource = "copy"\nclasses = ["robin", "wren"]\nsplit = "test"\n'
        "[splits]\nall = 4\ntest = 2\ntrain = 2\n"
    )
    done = bench("check-data", tmp_path / "birds.toml", "--json")
    assert {one["split"] for one in done.json["findings"]} <= {"train"}  # an image of both
    assert done.json["splits"] == {"test": 2, "train": 2}


def test_a_split_that_does_not_load_is_a_finding(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", "test/cat/1.png", "test/dog/2.png", "train/cat/1.png")
    Image.new("L", (2, 2)).save(folder / "train/loose.png")
    done = bench("check-data", folder, "--json")
    said = [one for one in done.json["findings"] if one["kind"] == "split"]
    assert len(said) == 1 and "lies in no class folder" in said[0]["said"]


def test_what_is_declared_is_no_problem(tmp_path: Path) -> None:
    """A split that is a part of another one, and an image that is known to occur twice."""
    names = ["train/robin/1.png", "train/wren/2.png", "test/robin/3.png", "test/wren/4.png"]
    folder = make_folder(tmp_path / "copy", *names)
    (folder / "train/robin/twin.png").write_bytes((folder / names[0]).read_bytes())
    for name in ("robin/1.png", "wren/2.png"):
        (folder / "validation" / name).parent.mkdir(parents=True)
        (folder / "validation" / name).write_bytes((folder / "train" / name).read_bytes())
    declared = (
        'name = "birds"\nsource = "copy"\nclasses = ["robin", "wren"]\nsplit = "test"\n'
        "[splits]\ntest = 2\ntrain = 3\nvalidation = 2\n"
    )
    expected = '[within]\nvalidation = "train"\n[duplicates]\ntrain = 1\n'
    for text, kinds in ((declared, ["duplicates", "across"]), (declared + expected, [])):
        (tmp_path / "birds.toml").write_text(text)
        done = bench("check-data", tmp_path / "birds.toml", "--json")
        assert [finding["kind"] for finding in done.json["findings"]] == kinds, done.out
        assert done.code == (4 if kinds else 0)
