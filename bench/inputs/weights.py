"""Weights of backbones: finding them, their fingerprint, and access to their files.

Weights are a folder, a folder inside an installed package (`package:folder`) or a repository on the
Hugging Face Hub. Only regular files inside the folder are opened. Subfolders must not be links,
because `os.walk` skips their files and the fingerprint would not cover them. LoRAs may be added,
the tensors of a single file may replace theirs, and a Python caller may pass an object instead.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any

from bench.errors import UserError, refusing
from bench.machine.cache import cache_dir, file_digest, read_cached, stamp, write_cached
from bench.machine.files import read_text, regular_file
from bench.machine.hub import Commit, absent, find_commit
from bench.machine.stages import counted

TEXT_SUFFIXES = (".json", ".txt", ".model", ".jinja")  # of configs and tokenizers
HASHED_SUFFIXES = {".safetensors", *TEXT_SUFFIXES}  # of all files that are read
# Parts of a pipeline that process generated images. None are generated here.
UNREAD_PARTS = ("feature_extractor/", "safety_checker/", "image_encoder/")
MAX_WEIGHT_FILES = 20_000  # in the folder of one model
MAX_CONFIG_BYTES = 100_000_000  # bytes; the largest tokenizers have some ten million
LARGE_FILE_BYTES = 50_000_000  # bytes above which a hash is cached
SINGLE_FILE = ".safetensors"
MODEL_FILE = re.compile(r"/(diffusion_pytorch_)?model(\.fp16)?(-\d+-of-\d+)?(\.fp16)?\.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")  # never opened, because they can run code
HAND_OVER = "load it with diffusers and hand it over: bench.run(DATASET, backbone=pipe)"


def find_file(folder: Path, name: str) -> Path | None:
    """Return a regular file of a weights folder with links resolved, or None if it does not exist.

    `folder` is absolute, with links resolved. Raises UserError if the file is not regular, or its
    folder is a link or lies outside.
    """
    parent = (folder / name).parent
    if Path(os.path.realpath(parent)) != parent:
        raise UserError(
            f"The weights folder {folder}: the folder of {name} is a link or lies outside."
            " Put a copy in its place."
        )
    with refusing("The weights file ", UserError, after=""):
        return regular_file(folder, name)


def hash_folder(folder: Path) -> str:
    """Return a hash of the names and contents of a weights folder's files.

    Raises UserError if there are no such files, too many files, or one cannot be read.
    """
    lines, paths = [], sorted(_iterate_files(folder))
    for path in counted(paths, f"Hashing {folder.name}", len(paths), "files"):
        name = path.relative_to(folder)
        real = find_file(folder, str(name))
        if real is None:
            raise UserError(f"The weights folder {folder}: {name} disappeared meanwhile.")
        lines.append(f"{name} {hash_file(path, real)}")
    if not lines:
        other = advise_format(folder.iterdir())
        raise UserError(
            f"The weights folder {folder} holds no safetensors and no configuration"
            f"{f'; {other}' if other else ''}."
        )
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def advise_format(files: Iterable[Path]) -> str | None:
    """Return advice on the first file that holds weights in a format that is not read, or None."""
    for file in sorted(files):
        if file.suffix == ".gguf":
            return f"{file.name} is quantised (GGUF): {HAND_OVER}"
        if file.suffix in PICKLES:
            return (
                f"{file.name} is a pickle, which can run code and is not opened: load it with"
                " diffusers where you trust it, and save it again with pipe.save_pretrained(FOLDER)"
            )
    return None


def _iterate_files(folder: Path) -> Iterator[Path]:
    seen = 0
    for parent, _, files in os.walk(folder):
        seen += len(files)
        if seen > MAX_WEIGHT_FILES:
            raise UserError(
                f"The weights folder {folder} holds more than {MAX_WEIGHT_FILES:,} files."
                " Name the folder of one model."
            )
        paths = [Path(parent, name) for name in files]
        yield from (path for path in paths if path.suffix in HASHED_SUFFIXES)


def hash_file(path: Path, real: Path) -> str:
    """Return a file's hash; that of a large file is cached until the file changes.

    Messages name `path`; `real` has links resolved. Raises UserError if the file cannot be read.
    """
    try:
        if real.stat().st_size <= LARGE_FILE_BYTES:
            return file_digest(real)
        state = f"{path} {stamp(real)}".encode(errors="surrogateescape")
        memo = cache_dir("hashes") / f"{hashlib.sha256(state).hexdigest()}.bin"
        if remembered := read_cached(memo):
            return remembered.decode("ascii", "replace")
        digest = file_digest(real)
    except OSError as error:
        raise UserError(
            f"The weights file {path} cannot be read: {error.strerror or error}."
        ) from None
    write_cached(memo, digest)
    return digest


def read_object(path: Path, name: str) -> dict[str, Any]:
    """Read a JSON object from a file, called `name` in messages (UserError for anything else)."""
    try:
        content = json.loads(read_text(path, MAX_CONFIG_BYTES))
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not valid JSON: {str(error)[:100]}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{name} holds a {type(content).__name__} instead of a JSON object.")
    return content


@dataclass(frozen=True)
class Lora:
    """A LoRA file that is added to a pipeline with a scale."""

    path: str  # absolute
    scale: float

    @property
    def name(self) -> str:
        """The file's name without its suffix; that of its folder if the name is diffusers' own."""
        path = Path(self.path)
        return path.parent.name if path.stem == "pytorch_lora_weights" else path.stem


@dataclass(frozen=True)
class Weights:
    """The location and fingerprint of weights; tensors are not loaded.

    `location` is an absolute folder, or a Hub id with its commit as `revision`. `fingerprint` is a
    hash of the folder's files, or Hub id and commit, and covers `loras`, which are added, and
    `file`, whose tensors replace the folder's. `commit` is what the Hub says of the revision; None
    for a folder.
    """

    location: str
    revision: str | None
    fingerprint: str
    loras: tuple[Lora, ...] = ()
    file: str | None = None
    commit: Commit | None = field(default=None, compare=False, repr=False)

    def find(self, name: str) -> Path | None:
        """Return the file `name`, such as `unet/config.json`, or None if it does not exist.

        A file of the Hub is downloaded if necessary. Raises UserError if it is not a regular file,
        or the Hub has it but does not provide it.
        """
        name = name.removeprefix("./")  # for a part that is the whole folder
        if self.revision is None:
            return find_file(Path(self.location), name)
        if self.listing is None:
            return self._commit.kept(name)
        if name not in self.listing:
            return None
        if name.endswith(TEXT_SUFFIXES) and not self.root.is_dir():  # the first: fetch all together
            self.prefetch(name for name in self._texts() if not name.startswith(UNREAD_PARTS))
        try:
            return self._commit.fetch(name)
        except Exception as error:  # the Hub's client raises many kinds
            raise absent(f"{self.describe(name)} is", error, self.location, "model") from error

    def header(self, name: str) -> Mapping[str, tuple[str, list[int]]]:
        """Return the dtype and shape of each tensor in a file of the Hub, without downloading it.

        Raises UserError, which is an AbsentError if the Hub may answer later.
        """
        try:
            return self._commit.header(name)
        except Exception as error:  # the Hub's client raises many kinds
            raise absent(f"{self.describe(name)} is", error, self.location, "model") from error

    def prefetch(self, names: Iterable[str]) -> None:
        """Download files of the Hub together, not one by one (UserError if there is no room)."""
        listed = self.listing or ()
        self._commit.prefetch(name for name in names if name in listed)

    def model_files(self, part: str, half: bool) -> list[str]:
        """Return a part's files of tensors on the Hub; `half` prefers the variant `fp16`."""
        inside = (name for name in self.listing or () if name.startswith(f"{part}/"))
        names = [name for name in inside if MODEL_FILE.fullmatch(name, len(part))]
        preferred = [name for name in names if (".fp16" in name) == half] or names
        return [name for name in preferred if "-of-" not in name] or preferred  # not in shards

    def _texts(self, folder: str = "") -> list[str]:
        """Return the names of the configs and tokenizers in a folder of the Hub, or in all."""
        prefix = f"{folder}/" if folder else ""
        names = (name for name in self.listing or () if name.endswith(TEXT_SUFFIXES))
        return [name for name in names if name.startswith(prefix)]

    @property
    def is_partial(self) -> bool:
        """Whether files that were not found may exist on the Hub, which never listed them."""
        return self.revision is not None and self.listing is None

    def folder(self, part: str) -> Path:
        """Return the local folder `part`, for a library that reads folders.

        For a repository of the Hub, it contains the configs and tokenizers of the part, and the
        files that `find` returned. Raises UserError if a file is not regular or not provided.
        """
        root = self.root
        if self.revision is None:
            for path in (root / part).iterdir():
                if path.is_symlink() or not path.is_dir():
                    find_file(root, str(path.relative_to(root)))
        self.prefetch(self._texts(part))
        for name in self._texts(part):
            self.find(name)
        return root / part

    @property
    def root(self) -> Path:
        """The local folder of all files."""
        return Path(self.location) if self.revision is None else self._commit.folder

    @property
    def listing(self) -> Mapping[str, int] | None:
        """Names of all files on the Hub with their bytes; None if unknown, and for a folder."""
        return self._commit.files

    @property
    def _commit(self) -> Commit:
        return self.commit or Commit(self.location, str(self.revision))

    def read(self, name: str) -> dict[str, Any]:
        """Read the JSON object in the file `name` (UserError if it is missing or another value)."""
        path = self.find(name)
        if path is None:
            raise self.error(name, "is not there. The folder must hold the whole model")
        return read_object(path, self.describe(name))

    def describe(self, name: str) -> str:
        """Return the name of a file or part in messages."""
        return f"The weights {self.location}: {name}"

    def error(self, name: str, problem: str) -> UserError:
        """Return an error about a file or part, in one line."""
        return UserError(f"{self.describe(name)} {problem}.")


def locate(weights: str) -> str:
    """Return the folder of a path or `package:folder`, or a Hub id unchanged (UserError)."""
    package, colon, folder = weights.partition(":")
    try:
        if colon and package.isidentifier():
            return str(_find_package_folder(package, folder))
        path = Path(weights).expanduser()
        if path.exists() or weights.startswith((".", "/", "~")):
            return str(path.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: unknown user after a ~
        raise UserError(
            f"The weights {weights[:200]!r} are not the name of a folder: {str(error)[:200]}."
        ) from None
    return weights


def _find_package_folder(package: str, folder: str) -> Path:
    try:
        spec = find_spec(package)
    except ValueError:  # raised for `__main__`
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"The package {package!r}, which holds the weights, is not installed. Weights on the"
            " Hub are named OWNER/NAME."
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    path = (root / folder).resolve()
    if path == root or not path.is_relative_to(root):
        raise UserError(
            f"The weights {package}:{folder} are not a folder inside the package {package!r}."
        )
    return path


def resolve(weights: str, revision: str | None = None) -> Weights:
    """Find weights and their fingerprint (UserError; AbsentError if the Hub does not answer)."""
    location = locate(weights)
    if not Path(location).is_absolute():
        try:
            commit = find_commit(location, revision)
        except Exception as error:  # the Hub's client raises many kinds
            raise absent(
                f"The weights {location!r}{f' at {revision}' if revision else ''} are",
                error,
                location,
                "model",
                "Fetch them where there is a network, with `bench fetch` or into a folder for"
                f" --weights FOLDER:\n  hf download {location} --local-dir FOLDER",
            ) from error
        fingerprint = f"{location}@{commit.commit}"
        return Weights(location, commit.commit, fingerprint, commit=replace(commit, error=None))
    if not Path(location).is_dir():
        problem = "is not a folder" if Path(location).exists() else "does not exist"
        other = advise_format([Path(location)])
        raise UserError(f"The weights folder {location} {problem}{f': {other}' if other else ''}.")
    return Weights(location, None, hash_folder(Path(location)))


@dataclass(frozen=True)
class InMemory(Weights):
    """A backbone object that a Python caller passed, in place of files.

    `location` is its name, and `fingerprint` a hash of everything that affects its results.
    """

    backbone: Any = field(default=None, compare=False, repr=False)
    description: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


def parse_lora(text: str) -> Lora:
    """Parse `PATH[:SCALE]` of a safetensors file, or of a folder with only one (UserError)."""
    path, factor = Path(text), 1.0
    name, _, scale = text.rpartition(":")
    with suppress(ValueError):  # the colon, if any, belongs to the path
        if name and isfinite(float(scale)):
            path, factor = Path(name), float(scale)
    path = path.expanduser().absolute()
    if path.is_dir():
        files = sorted(path.glob(f"*{SINGLE_FILE}"))
        if len(files) != 1:
            raise UserError(
                f"--lora {text}: the folder holds {len(files)} safetensors files; name one."
            )
        path = files[0]
    if path.suffix != SINGLE_FILE or not path.is_file():
        problem = advise_format([path]) or f"expected a {SINGLE_FILE} file or its folder"
        raise UserError(f"--lora {text}: {problem}.")
    return Lora(str(path), factor)


def add_files(weights: Weights, loras: Sequence[Lora], file: str | None) -> Weights:
    """Return weights with LoRAs, and with tensors of a single file instead of the folder's.

    Raises UserError if a file does not exist or is not regular.
    """
    if not loras and file is None:
        return weights
    contents = [(_hash_of(lora.path), lora.scale) for lora in loras]
    parts = json.dumps([weights.fingerprint, contents, file and _hash_of(file)])
    whole = hashlib.sha256(parts.encode()).hexdigest()
    return replace(weights, fingerprint=whole, loras=tuple(loras), file=file)


def _hash_of(file: str) -> str:
    path = Path(file)
    if (real := regular_file(path.parent, path.name)) is None:
        raise UserError(f"The weights file {file} does not exist.")
    return hash_file(path, real)
