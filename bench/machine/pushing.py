"""Sends the files of a folder to the Hugging Face Hub, in one commit."""

from functools import partial
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.machine.hub import BUSY, ask_again, ask_once, endpoint, hub_status, megabytes


def push_folder(
    folder: Path, repository: str, kind: str, message: str, pull_request: bool, create: bool
) -> str:
    """Send the files of a folder in one commit; return its URL, or that of the pull request.

    `kind` is `model` or `dataset`. With `create`, a missing repository is created as a private one.
    Raises BenchError if the Hub refuses it or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api: Any = HfApi(endpoint=endpoint())
    target = {"repo_type": kind, "create_pr": pull_request}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in paths]
    sizes = [path.stat().st_size for path in paths]
    try:
        if create:
            new = {"repo_type": kind, "private": True, "exist_ok": True}
            ask_again(partial(api.create_repo, repository, **new))
        with megabytes("Sending to", repository, sum(sizes)) as sending:
            for number, file in enumerate(files, start=1):
                ask_again(partial(api.preupload_lfs_files, repository, [file], **target))
                sending.done = sum(sizes[:number]) // 10**6  # the stage counts megabytes
            change = partial(api.create_commit, repository, files, commit_message=message, **target)
            commit = ask_once(change)  # asked again, it might make a second pull request
    except Exception as error:  # the Hub's client raises many types
        status = hub_status(error)
        advice: dict[int | None, str] = {
            401: " Log in with: hf auth login",
            403: " The token may not write there; --pull-request proposes the change instead.",
            404: f" There is no {kind} of that name that you can see; --create makes it.",
            **dict.fromkeys(BUSY, " It is busy: try again later."),
        }
        problem = f"the Hub refused it ({status}).{advice.get(status, '')}"
        if status is None:
            problem = f"the Hub cannot be reached ({type(error).__name__})."
        raise BenchError(f"--push {repository}: {problem}") from error
    return str((commit.pr_url if pull_request else commit.commit_url) or repository)
