"""Results on their way to the Hugging Face Hub: what would go, and sending it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.boards.error_dataset import write_error_dataset
from bench.boards.eval_results import FOLDER, eval_results
from bench.errors import BenchError, UserError
from bench.recordings.hub import endpoint
from bench.store.runs import read_run


@dataclass(frozen=True)
class Push:
    """Files and the repository they go to.

    Attributes:
        kind: of the repository.
        repository: `owner/name`.
        files: path in the repository → the file, or its content.
        message: the commit's.
    """

    kind: Literal["model", "dataset"]
    repository: str
    files: dict[str, Path | bytes]
    message: str

    def size(self, name: str) -> int:
        """Return a file's size in bytes."""
        content = self.files[name]
        return len(content) if isinstance(content, bytes) else content.stat().st_size


@contextmanager
def prepared(
    run: Path, what: str, repository: str, dataset: str | None = None, task: str | None = None
) -> Iterator[Push]:
    """Give what would go to the Hub; files that were made for it are gone afterwards.

    Args:
        run: the folder of a complete run.
        what: `eval-results`, for a model's repository, or `errors`, for a dataset's.
        repository: `owner/name`.
        dataset: see `eval_results`.
        task: likewise.

    Raises:
        UserError: the run does not have it, or the name is none.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise UserError(f"--to {repository}: write it as owner/name.")
    name = read_run(run).manifest.run_id
    if what == "eval-results":
        content = eval_results(run, dataset, task).encode()
        files: dict[str, Path | bytes] = {f"{FOLDER}/{name}.yaml": content}
        yield Push("model", repository, files, f"Add the result of {name}")
        return
    with tempfile.TemporaryDirectory(prefix="bench-push-") as folder:
        written = write_error_dataset(run, Path(folder, "dataset"))
        root = Path(folder, "dataset")
        files = {path.relative_to(root).as_posix(): path for path in written}
        yield Push("dataset", repository, files, f"Add the errors of {name}")


def send(push: Push, pull_request: bool = False, create: bool = False) -> str:
    """Commit the files, and return the address of the commit, or of the pull request.

    Args:
        push: what goes.
        pull_request: open a pull request instead of committing.
        create: make the repository, private, where there is none.

    Raises:
        BenchError: the Hub refused it, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint())
    try:
        if create:
            api.create_repo(push.repository, repo_type=push.kind, private=True, exist_ok=True)
        done = api.create_commit(
            push.repository,
            [CommitOperationAdd(name, content) for name, content in push.files.items()],
            commit_message=push.message,
            repo_type=push.kind,
            create_pr=pull_request,
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        advice = {
            401: " Log in with: hf auth login",
            403: " The token may not write there; --pull-request proposes the change instead.",
            404: f" There is no {push.kind} of that name that you can see; --create makes it.",
        }.get(status or 0, "")
        raise BenchError(
            f"--to {push.repository}: the Hub refused it ({status}).{advice}"
        ) from error
    except Exception as error:  # the Hub's client raises many kinds
        raise BenchError(
            f"--to {push.repository}: the Hub cannot be reached ({type(error).__name__})."
        ) from error
    return str((done.pr_url if pull_request else done.commit_url) or push.repository)
