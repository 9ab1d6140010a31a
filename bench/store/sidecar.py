"""Side files: what is kept beside a run's records, and read only while it is true of them.

A side file has a seal: the hash of the settings that it is about, the length and the hash of the
part of `samples.jsonl` that it covers, and the hash of its own content. If one of them no longer
holds, the file was edited, damaged, or moved, or the records were changed, and it is left out.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

from typing_extensions import TypedDict

from bench.errors import UserError, warn_user
from bench.store.formats.fields import (
    Count,
    Document,
    check_format,
    is_valid,
    read_json,
    to_json,
    validated,
)
from bench.store.formats.journal import prefix_hash, read_lines
from bench.store.locking import LockedFolder

SIDECAR_FORMAT = 4  # side files of earlier formats have no seal
Content = TypeVar("Content")
Raw = Mapping[str, Any]


class Seal(TypedDict):
    """What must be unchanged for a side file to be read."""

    settings: str  # hash of the settings that it is about
    bytes: Count  # length of the records that it covers, from the start of `samples.jsonl`
    records: str  # hash of these records, "" if it covers none
    hash: str  # hash of the rest of the seal and of the file


@dataclass(frozen=True)
class Sidecar(Generic[Content]):
    """A kind of side file: one document, or lines that are appended.

    `settings` is the stored hash of what the content is about, mostly that of the run's identity.
    """

    name: str  # of the file
    model: type[Content]  # of the document or of a line
    what: str  # words for it in messages, such as "a calibration"
    advice: str  # sentence that says how to make it again
    covers_records: bool = True  # whether it is about the records that exist when it is written
    accepts_unsealed: Callable[[Content, str], bool] = lambda content, settings: True
    """Whether content of an earlier format, without a seal, is about these settings."""

    def read(self, path: Path, settings: str) -> Content | None:
        """Return the document of `path`; None if there is none, or a false one, with a warning."""
        try:
            return self.require(path, settings) if os.path.lexists(path / self.name) else None
        except UserError as error:
            warn_user(f"Left out: {error}")
            return None

    def covered(self, path: Path) -> int | None:
        """Return the bytes of records that the valid document of `path` covers; None: unknown."""
        seal: Seal | None = read_json(path, self.name).get("seal")
        return seal and seal["bytes"]

    def require(self, path: Path, settings: str) -> Content:
        """Return the document; UserError if it is absent, damaged, changed, stale or newer."""
        try:
            return self._checked(read_json(path, self.name), path, settings)
        except UserError as error:
            raise UserError(f"{error} {self.advice}") from None
        except ValueError as error:
            raise UserError(f"{path / self.name} {error}. {self.advice}") from None

    def write(
        self, folder: LockedFolder, settings: str, content: Content, durable: bool = True
    ) -> None:
        """Replace the document; `durable` as for `replacing`."""
        plain = {**_plain(content), "format": SIDECAR_FORMAT}
        folder.write(self.name, to_json(self._sealed(plain, folder.path, settings)), durable)

    def entries(self, path: Path, settings: str) -> list[Content]:
        """Return the lines of the folder `path`, without false ones, which a warning names."""
        entries: list[Content] = []

        def kept(line: Any) -> bool:
            try:
                entries.append(self._checked(line, path, settings))
            except (UserError, ValueError):
                return False
            return True

        problem = f"changed or stale. {self.advice}"
        try:
            list(read_lines(path / self.name, kept, problem))  # `kept` collects the true ones
        except UserError as error:  # not a regular file
            warn_user(f"Left out: {error}")
        return entries

    def append(self, folder: LockedFolder, settings: str, content: Content) -> None:
        """Append a line."""
        with closing(folder.journal(self.name)) as lines:
            lines.append(self._sealed(_plain(content), folder.path, settings))

    def rewrite(self, folder: LockedFolder, settings: str, contents: Iterable[Content]) -> None:
        """Replace all lines atomically."""
        lines = (self._sealed(_plain(content), folder.path, settings) for content in contents)
        folder.write(self.name, "".join(f"{json.dumps(line)}\n" for line in lines))

    def _sealed(self, content: Raw, path: Path, settings: str) -> Raw:
        length, records = prefix_hash(path) if self.covers_records else (0, "")
        seal = Seal(settings=settings, bytes=length, records=records, hash="")
        return {**content, "seal": {**seal, "hash": _hash(content, seal)}}

    def _checked(self, content: Any, path: Path, settings: str) -> Content:
        """Return the document of JSON content; raise ValueError with what is wrong with it."""
        content = content if isinstance(content, dict) else {}
        seal: Any = content.get("seal")
        check_format(content, SIDECAR_FORMAT, path / self.name)
        if seal is not None or content.get("format") == SIDECAR_FORMAT:
            if not is_valid(seal, Seal) or _hash(content, seal) != seal["hash"]:
                raise ValueError("was changed: its hash differs")
            if seal["settings"] != settings:
                raise ValueError("is stale: it is about other data or settings")
            if self.covers_records and prefix_hash(path, seal["bytes"])[1] != seal["records"]:
                raise ValueError("is stale: the records that it is about were changed")
        plain = {name: value for name, value in content.items() if name not in ("format", "seal")}
        document: Content = validated(plain, self.model, self.what)
        if seal is None and not self.accepts_unsealed(document, settings):
            raise ValueError("was changed, or is not about this run")
        return document


def _plain(content: object) -> Raw:
    return content.plain() if isinstance(content, Document) else dict(content)  # type: ignore[call-overload]  # a TypedDict


def _hash(content: Raw, seal: Seal) -> str:
    text = json.dumps({**content, "seal": {**seal, "hash": ""}}, sort_keys=True)
    return sha256(text.encode()).hexdigest()
