"""`bench export`. Write a run for other tools, or send it to the Hub.

Group: Many runs, repeated and published, 4.
"""

import os
import shlex
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import click

from bench.cli.command import Params, Results, command, end_with_json, names_of
from bench.cli.output import next_steps, results_argument, say
from bench.contracts.exporters import Exporter
from bench.contracts.specs import ExporterSpec
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make_from
from bench.errors import UserError
from bench.machine.files import write_atomically, writing
from bench.machine.hub import push_folder
from bench.reports.run_view import read_view
from bench.store.folder import find_run

REPLAYED = "errors"  # format whose folder can be replayed


@command(needs=dict.fromkeys(("--dry-run", "--pull-request", "--create"), "--push"))
def export_command(
    run: str,
    *,
    kind: Annotated[
        str,
        "Format: see `bench list exporters`.",
        "--format",
        {"shell_complete": names_of("exporters")},
    ] = "model-index",
    params: Params,
    out: Annotated[
        str | None, "File to write instead of stdout; for a format of several files, the folder."
    ],
    push: Annotated[
        str | None, "Send it to this repository on the Hub.", {"metavar": "OWNER/NAME"}
    ],
    dry_run: Annotated[bool, "With --push: show what would be sent."],
    pull_request: Annotated[bool, "With --push: open a pull request instead of committing."],
    create: Annotated[bool, "With --push: create the repository, private, if it is missing."],
    results: Results,
) -> None:
    """Write RUN in a format for other tools, or send it to the Hugging Face Hub.

    `bench list exporters` lists the formats. Nothing is sent without --push. Log in first with `hf
    auth login`.
    """
    spec = load_plugins().exporters.get(kind)
    if push is not None and (push.count("/") != 1 or not all(push.split("/"))):
        raise UserError(f"--push {push}: expected the form owner/name.")
    if push is not None and spec.repository is None:
        raise UserError(f"--format {kind} is for no repository on the Hub.")
    if push is None and out is None and (spec.several or kind == "parquet"):
        what = "folder" if spec.several else "file"
        raise UserError(f"--format {kind} writes a {what}: name it with --out.")
    target = None if out is None else Path(out)
    view, beside = read_view(find_run(run, results)), None
    if target is not None and spec.several:
        taken = target.is_symlink() or (target.exists() and not target.is_dir())
        if taken or (not spec.adds and target.is_dir() and any(target.iterdir())):
            raise UserError(
                f"--out {target} already exists and is not an empty folder. Name a new one."
            )
        beside = target.parent
        beside.mkdir(parents=True, exist_ok=True)
    with writing(f"--out {out}"), TemporaryDirectory(prefix=".bench-export-", dir=beside) as name:
        folder = Path(name, "files")
        folder.mkdir()
        exporter: Exporter = make_from(spec, spec.resolve_parameters(params))
        with guard(spec.label, "write()", (UserError, OSError)):
            exporter.write(view, folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path for path in paths}
        if push is not None:
            what, address = f"Add {kind} of {view.manifest.run_id}", None
            if not dry_run:
                place = push, str(spec.repository)
                address = push_folder(folder, *place, what, pull_request, create)
            _print_pushed(files, spec, push, address)
        elif target is None:
            click.echo(next(iter(files.values())).read_text("utf-8").rstrip("\n"))
        elif spec.several:
            shutil.copytree(folder, target, dirs_exist_ok=True, copy_function=os.replace)
            size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
            say(f"{out}: {len(files)} files, {_format_size(size)}", err=True)
        else:
            write_atomically(target, next(iter(files.values())).read_bytes())
            say(f"Wrote {out}", err=True)
    steps = []
    if kind == REPLAYED and target is not None:
        replay = f"bench replay {shlex.quote(str(out))} --strategy race"
        steps.append(("replay a strategy on it", replay))
    if spec.repository is not None and push is None:
        words = ["bench", "export", run, "--format", kind, "--push", "OWNER/NAME", "--dry-run"]
        step = shlex.join(words) + results_argument(results)
        steps.append(("see what would go to the Hub", step))
    if steps and target is not None:
        next_steps(*steps)


def _print_pushed(
    files: dict[str, Path], spec: ExporterSpec, repository: str, address: str | None
) -> None:
    """State which files were sent to an address; None: which would be."""
    sizes, kind = {name: file.stat().st_size for name, file in files.items()}, str(spec.repository)
    end_with_json({"repository": repository, "kind": kind, "files": sizes, "address": address})
    for name, size in sizes.items():
        say(f"{kind} {repository}: {name} ({_format_size(size)})")
        if address is None and not spec.several:
            say(files[name].read_text("utf-8").rstrip("\n"))
    say("Nothing was sent." if address is None else f"Sent: {address}")
    if address is None:
        next_steps(("send it", "the same command without --dry-run"))


def _format_size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"
