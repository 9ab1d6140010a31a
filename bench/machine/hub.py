"""The Hugging Face Hub: a revision is resolved and listed once, and then needs no network.

`find_commit` asks which commit a revision is and which files it has. Both answers are kept, the
commit where the Hub's own clients look for it (`refs`) and the listing in the toolkit's cache, and
are used if the Hub does not answer. Files are fetched by commit. A file that the listing has is
fetched or reported, never taken for absent, and a file of the cache is used only if it has the size
and, where the listing has it, the git hash that are listed.

A busy Hub is waited for by `ask_again` alone: the retries of the Hub's clients, which would wait
for as long as the Hub names, many times over, never see its answer.

All functions of huggingface_hub that are needed exist since 0.27, the lowest version.
"""

import errno
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import AbsentError, UserError, warn_user
from bench.machine.cache import NOT_WRITABLE, cache_dir, read_cached, write_cached
from bench.machine.files import (
    path_exists,
    read_bytes,
    read_text,
    regular_file,
    resolve_inside,
    write_atomically,
)
from bench.machine.guest import hide_bars
from bench.machine.libraries import hub_constants, hub_errors, huggingface_hub
from bench.machine.offline import SilentHubError, ask_promptly, hub_silence, why_not_asked
from bench.machine.stages import Stage, displays, stage

SCHEME = "hf:"  # prefix of what is on the Hub
BUSY = (408, 429, 500, 502, 503, 504)  # HTTP statuses of a Hub that should be asked again
PAUSES = (1.0, 4.0, 15.0)  # seconds before a busy Hub is asked again, unless it names more
LONGEST_WAIT = 300.0  # seconds in all; the Hub counts the requests of five minutes
TIMEOUT = 10.0  # seconds to wait for a listing
ANSWER_LIFETIME = 60.0  # seconds for which an answer is not asked for again
COMMIT = re.compile("[0-9a-f]{40}")
T = TypeVar("T")
logger = logging.getLogger("bench.hub")


@dataclass(frozen=True)
class Commit:
    """A commit of a repository of the Hub.

    `files` maps the names of all files to their sizes in bytes; None if the Hub never listed them.
    `hashes` maps those that git itself keeps, which are small, to git's hashes of their contents.
    `error` is why the Hub did not answer, if the answers were stored before.
    """

    repository: str
    commit: str
    kind: str = "model"  # or "dataset"
    files: Mapping[str, int] | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    error: Exception | None = field(default=None, compare=False)

    @property
    def folder(self) -> Path:
        """The folder of its files in the cache of the Hub's clients."""
        return _folder(self.repository, self.kind) / "snapshots" / self.commit

    def kept(self, name: str) -> Path | None:
        """Return a file in the cache; None if it is missing or not what the listing says.

        Raises UserError if it is not a regular file of the repository.
        """
        path = self.folder / name
        resolve_inside(self.folder, name)
        if not path_exists(path):  # or a link to content that was removed
            return None
        real = regular_file(self.folder, name)
        size = (self.files or {}).get(name)  # None if it is not listed
        if real is None or size not in (None, real.stat().st_size):
            return None
        return path if self.hashes.get(name) in (None, _git_hash(real)) else None

    def fetch(self, name: str) -> Path:
        """Return a file that the listing has, after downloading it if necessary.

        Raises UserError if there is no room for it, or another file is in its place, and what the
        Hub's client raises.
        """
        if (path := self.kept(name)) is not None:
            return path
        get = partial(huggingface_hub.hf_hub_download, self.repository, name, endpoint=endpoint())
        if is_damaged := path_exists(self.folder / name):
            warn_user(f"{self.folder / name} is damaged: the Hub lists another content.")
        with self.downloading([name]):
            revision = {"repo_type": self.kind, "revision": self.commit}
            ask_again(lambda: get(force_download=is_damaged, **revision))
        if (path := self.kept(name)) is None:
            raise UserError(f"{self.repository}: the Hub sends another {name} than it lists.")
        return path

    def header(self, name: str) -> dict[str, tuple[str, list[int]]]:
        """Return the dtype and shape of each tensor in a safetensors file, without downloading it.

        Raises what the Hub's client raises.
        """
        if (reason := why_not_asked()) is not None:
            raise SilentHubError(reason)
        read = huggingface_hub.HfApi(endpoint=endpoint()).parse_safetensors_file_metadata
        parsed = ask_again(lambda: read(self.repository, name, revision=self.commit))
        return {tensor: (info.dtype, info.shape) for tensor, info in parsed.tensors.items()}

    def prefetch(self, names: Iterable[str]) -> None:
        """Download missing files of the listing together. Those that fail are reported by `fetch`.

        Raises UserError if there is no room for them, or another file is in the place of one.
        """
        missing = [name for name in names if self.kept(name) is None]
        if not missing:
            return
        get = partial(huggingface_hub.snapshot_download, self.repository, endpoint=endpoint())
        names = [glob.escape(name) for name in missing]
        revision = {"repo_type": self.kind, "revision": self.commit}
        with suppress(SilentHubError), self.downloading(missing), suppress(Exception):
            ask_again(lambda: get(allow_patterns=names, **revision))

    @contextmanager
    def downloading(self, names: Collection[str]) -> Iterator[None]:
        """Log the size of files to download, and show a stage while the block downloads them.

        Raises UserError if there is no room for them, and SilentHubError.
        """
        answered = any(key[0] == endpoint() and _is_recent(key) for key in _answers)
        if (reason := why_not_asked()) is None and not answered:
            reason = hub_silence()
        if reason is not None:  # the Hub's client would ask for minutes
            raise SilentHubError(reason)
        size = sum((self.files or {}).get(name, 0) for name in names)
        logger.info(f"{self.repository}: downloading {len(names)} files, {size / 1e6:,.1f} MB.")
        folder = next(path for path in self.folder.parents if path.is_dir())
        if size > (free := shutil.disk_usage(folder).free):
            raise UserError(
                f"{self.repository} needs {size / 1e9:,.1f} GB, and {folder} has {free / 1e9:,.1f}"
                " GB left. Make room, or set HF_HOME to a folder on another disk."
            )
        blobs = self.folder.parent.parent / "blobs"
        before = _bytes_in(blobs)
        with megabytes("Downloading", self.repository, size) as shown:
            shown.measure = lambda: (_bytes_in(blobs) - before) // 10**6
            yield


# (address, folder, revision) → when the Hub answered, and its answer.
_answers: dict[tuple[str | None, ...], tuple[float, Commit]] = {}
_given_up: dict[str | None, float] = {}  # address of a busy Hub → when it was not waited for longer


def find_commit(repository: str, revision: str | None = None, kind: str = "model") -> Commit:
    """Return the commit of a branch, tag, pull request (`refs/pr/1`) or commit; None means main.

    Raises SilentHubError if the Hub is needed and does not answer, and what its client raises.
    """
    key = (endpoint(), str(_folder(repository, kind)), revision)
    if _is_recent(key):
        return _answers[key][1]
    stored = _stored(repository, revision, kind)
    is_complete = stored is not None and stored.files is not None
    if stored is not None and is_complete and stored.commit == revision:
        return stored
    ask = partial(_ask_for_commit, repository, revision, kind)
    try:
        with stage(f"Asking the Hub about {repository}"):
            commit = ask_again(ask, () if is_complete else PAUSES)
    except Exception as error:
        if stored is None:
            raise
        return replace(stored, error=error)
    _store(commit, revision or "main")
    _answers[key] = time.monotonic(), commit
    return commit


def _ask_for_commit(repository: str, revision: str | None, kind: str) -> Commit:
    if (reason := why_not_asked()) is not None:
        raise SilentHubError(reason)
    api = huggingface_hub.HfApi(endpoint=endpoint())
    describe = api.dataset_info if kind == "dataset" else api.model_info
    info = ask_promptly(
        lambda: describe(repository, revision=revision, timeout=TIMEOUT, files_metadata=True),
        TIMEOUT,
    )
    listed: Any = info.siblings or ()
    files = {file.rfilename: file.size or 0 for file in listed}
    hashes = {f.rfilename: f.blob_id for f in listed if f.blob_id and not f.lfs}
    return Commit(repository, str(info.sha), kind, files or None, hashes)


def absent(what: str, error: Exception, repository: str, kind: str, offline: str = "") -> UserError:
    """Return the error about something that is not on this machine, with the next step.

    `offline` says what to do without a network. It is an AbsentError if the Hub may give it later.
    """
    reason = f"{what} not on this machine, and {refusal(error, repository, kind)}."
    cause = _cause_of(error)
    if isinstance(cause, hub_errors.GatedRepoError):
        return AbsentError(reason)
    certain = hub_errors.RevisionNotFoundError | hub_errors.HFValidationError | UserError
    if isinstance(cause, certain) or _is_hidden(cause):
        return UserError(reason)
    return AbsentError(f"{reason}\n{offline}" if offline else reason)


def refusal(error: Exception, repository: str, kind: str = "model") -> str:
    """Return why the Hub did not provide something and what to do, as the end of a sentence."""
    cause, status = _cause_of(error), hub_status(error)
    if isinstance(error, SilentHubError | UserError):
        return str(error).rstrip(".")
    if isinstance(error, hub_errors.HFValidationError):
        return f"{repository!r} is not the id of a {kind} on the Hub, such as OWNER/NAME"
    if isinstance(cause, hub_errors.GatedRepoError):
        return f"the Hub refuses it. {advise_licence(repository, kind=kind)}".rstrip(".")
    if isinstance(cause, hub_errors.RevisionNotFoundError):
        page = _page(repository, kind)
        return f"the Hub does not have this revision. Its branches and tags are at {page}/tree/main"
    if _is_hidden(cause):
        return (
            f"the Hub has no {kind} {repository!r}, or it is private. Check the name, or log in"
            " with `hf auth login`"
        )
    if isinstance(error, OSError) and error.errno in (*NOT_WRITABLE, errno.EACCES, errno.EPERM):
        return (
            f"the cache {hub_constants.HF_HUB_CACHE} cannot be written ({error.strerror}). Make"
            " room, or set HF_HOME to another folder"
        )
    if status is None:
        detail = " ".join(str(error).split())[:200]
        return f"the Hub did not provide it ({type(error).__name__}: {detail}). Try again"
    busy = ". It is busy: try again later" if status in BUSY else ""
    return f"the Hub answered {status}{busy}"


def advise_licence(repository: str, licence: str | None = None, kind: str = "model") -> str:
    """Return what to do if the Hub gives something only to users who accepted its licence."""
    named = f" ({licence})" if licence else ""
    return (
        f"Its licence{named} has to be accepted at {_page(repository, kind)}, and this machine"
        " logged in with `hf auth login`."
    )


def ask_again(ask: Callable[[], T], pauses: Iterable[float] = PAUSES) -> T:
    """Return what `ask` returns; while the Hub is busy, ask again after the time that it names.

    All pauses together last `LONGEST_WAIT` seconds at most, and there are none for a Hub that was
    given up a moment ago: its listing, all files together and each file share one limit.
    """
    address, waited = endpoint(), 0.0
    if time.monotonic() - _given_up.get(address, -ANSWER_LIFETIME) < ANSWER_LIFETIME:
        pauses = ()
    for pause in pauses:
        try:
            return ask_once(ask)
        except Exception as error:
            status = hub_status(error)
            if status not in BUSY:
                raise
            seconds = max(pause, _retry_after(error) or 0.0)
            if waited + seconds > LONGEST_WAIT:
                _given_up[address] = time.monotonic()
                raise
        waited += seconds
        if waited > TIMEOUT:
            warn_user(
                f"The Hub is busy ({status}); it is asked again in {seconds:.0f} s. It is waited"
                f" for {LONGEST_WAIT:.0f} s at most."
            )
        time.sleep(seconds)
    try:
        return ask_once(ask)
    except Exception as error:
        if hub_status(error) in BUSY:
            _given_up[address] = time.monotonic()
        raise


def ask_once(ask: Callable[[], T]) -> T:
    """Return what `ask` returns. A busy answer to any of its requests is raised at once."""
    session: Any = huggingface_hub.get_session()  # of httpx, or before 1.0 of requests
    hooks = (session.event_hooks if hasattr(session, "event_hooks") else session.hooks)["response"]
    hooks.append(_raise_if_busy)
    try:
        return ask()
    finally:
        hooks.remove(_raise_if_busy)


def _raise_if_busy(response: Any, *_: Any, **__: Any) -> None:
    if response.status_code in BUSY:
        response.raise_for_status()


def hub_status(error: BaseException | None) -> int | None:
    """Return the HTTP status with which the Hub refused a request; None if it did not answer."""
    response = getattr(_cause_of(error), "response", None)  # of httpx or requests
    return None if response is None else int(response.status_code)


def endpoint() -> str | None:
    """Return the Hub address in the variable HF_ENDPOINT; None for the public Hub."""
    return os.environ.get("HF_ENDPOINT") or None


def _page(repository: str, kind: str) -> str:
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"


def _is_recent(key: tuple[str | None, ...]) -> bool:
    return key in _answers and time.monotonic() - _answers[key][0] < ANSWER_LIFETIME


def _cause_of(error: BaseException | None) -> BaseException | None:
    """Return the first of an error and its causes that has the Hub's answer, or else the error."""
    cause = error
    while cause is not None and getattr(cause, "response", None) is None:
        cause = cause.__cause__
    return cause or error


def _is_hidden(error: BaseException | None) -> bool:
    """Return whether the Hub says that there is no such repository, or hides it."""
    return isinstance(error, hub_errors.RepositoryNotFoundError) or hub_status(error) == 401


def _retry_after(error: BaseException) -> float | None:
    """Return the seconds after which the Hub wants to be asked again, if it names them."""
    response: Any = getattr(_cause_of(error), "response", None)
    headers: Mapping[str, str] = getattr(response, "headers", {})
    # RateLimit says that r requests remain for the next t seconds.
    spent = re.search(r"\br=0\s*;\s*t=(\d+)", headers.get("RateLimit", ""))
    seconds = spent[1] if spent else headers.get("Retry-After", "")
    with suppress(ValueError):  # it names none, or a date
        return max(0.0, float(seconds))
    return None


def _folder(repository: str, kind: str) -> Path:
    from huggingface_hub.file_download import repo_folder_name

    return Path(hub_constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type=kind))


def _ref(repository: str, revision: str, kind: str) -> Path:
    return resolve_inside(_folder(repository, kind) / "refs", revision)


def _stored(repository: str, revision: str | None, kind: str) -> Commit | None:
    """Return the commit that a revision was when it was last fetched, if it is in the cache."""
    ref = _ref(repository, revision or "main", kind)
    name = read_text(ref).strip() if ref.is_file() else revision or ""
    if not COMMIT.fullmatch(name):
        return None
    commit = _listed(Commit(repository, name, kind))
    # The rows of a dataset may be in the cache of another library alone.
    is_used = commit.folder.is_dir() or (kind == "dataset" and commit.files is not None)
    return commit if is_used else None


def _store(commit: Commit, revision: str) -> None:
    """Keep the listing of a commit, and that it is the commit of a revision."""
    if commit.files is not None:
        listing = {"files": commit.files, "hashes": commit.hashes}
        write_cached(_listing_file(commit, "listings"), json.dumps(listing))
    ref = _ref(commit.repository, revision, commit.kind)
    with suppress(OSError):  # of a read-only cache
        if revision != commit.commit and not (ref.is_file() and ref.read_text() == commit.commit):
            ref.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(ref, commit.commit, durable=False)


def _listed(commit: Commit) -> Commit:
    """Return a commit with its stored listing: our own, or that of another user of the cache."""
    if (stored := read_cached(_listing_file(commit, "listings"))) is not None:
        return replace(commit, **json.loads(stored))
    if (sizes := read_cached(_listing_file(commit, "files"))) is not None:  # of earlier versions
        return replace(commit, files=json.loads(sizes))
    try:
        tree = huggingface_hub.get_cached_repo_tree(
            commit.repository, repo_type=commit.kind, revision=commit.commit
        )
    except Exception:  # not stored, or a version before 1.23
        return commit
    hashes = {file.path: file.blob_id for file in tree if not file.lfs}
    return replace(commit, files={file.path: file.size for file in tree}, hashes=hashes)


def _git_hash(file: Path) -> str:
    content = read_bytes(file)
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _bytes_in(folder: Path) -> int:
    """Return the bytes on disk of a folder's files, also of those that are being written."""
    size = 0
    with suppress(FileNotFoundError):  # of the folder, or of a file that was renamed meanwhile
        for entry in os.scandir(folder):
            file = entry.stat()  # a file may have its final size before its content is there
            size += getattr(file, "st_blocks", file.st_size // 512) * 512
    return size


def megabytes(what: str, repository: str, size: int) -> AbstractContextManager[Stage]:
    """Return a stage of megabytes; the client's own bars are hidden where stages are shown."""
    if displays:
        hide_bars("huggingface_hub")
    return stage(f"{what} {repository}", max(1, size // 10**6), "MB")


def _listing_file(commit: Commit, form: str) -> Path:
    name = f"{commit.repository.replace('/', '--')}@{commit.commit}.json"
    return cache_dir(form, f"{commit.kind}s") / name
