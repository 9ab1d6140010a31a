"""`bench export`. Write a run for other tools, or send it to the Hub.

Group: Many runs, repeated and published, 4.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import click

from bench.cli.command import Params, Results, command, end_with_json, names_of
from bench.cli.output import named_run, next_steps, results_argument, say, wrote
from bench.contracts.exporters import Exporter
from bench.contracts.specs import ExporterSpec
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make_from
from bench.errors import PluginError, UserError, some_of
from bench.machine.files import own_files, resolve_inside, take_file, write_atomically, writing
from bench.machine.pushing import push_folder
from bench.reports.flat import flat_rows
from bench.reports.run_view import RunView, read_view
from bench.reports.text import csv_text

ERROR_TABLES = "errors"  # format whose folder can be replayed


@command(needs=dict.fromkeys(("--dry-run", "--pull-request", "--create"), "--push"))
def export_command(
    run: str | None,
    *,
    everything: Annotated[
        bool, "Instead of RUN: a row per stored run and metric, with --format csv.", "--all"
    ],
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
    """Write RUN, or all stored runs, for other tools, or send it to the Hugging Face Hub.

    `bench list exporters` lists the formats. Nothing is sent without --push. Log in first with `hf
    auth login`.
    """
    if (run is None) != everything:
        raise UserError("Name the run to export, or write --all for a table of all stored runs.")
    if run is None:
        if kind != "csv" or push is not None:
            raise UserError("--all writes one table: --format csv, without --push.")
        _write_table(results, out)
        return
    spec = _checked_exporter(kind, push, out)
    view = read_view(named_run(run, results, err=True))
    with _exported(view, spec, params, out) as folder:
        files = {name: folder / name for name in own_files(folder)}
        if push is not None:
            address = None
            if not dry_run:
                message, repository = f"Add {kind} of {view.manifest.run_id}", str(spec.repository)
                address = push_folder(folder, push, repository, message, pull_request, create)
            _print_pushed(files, spec, push, address)
        elif out is None:
            if (text := _text_of(files)) is None:
                raise UserError(f"--format {kind} is not text: name a file with --out.")
            click.echo(text)
        else:
            _write(files, out, spec.several)
    if out is not None:
        _print_steps(spec, run, out, results, pushed=push is not None)


def _write_table(results: str, out: str | None) -> None:
    """Write a row per stored run and metric."""
    rows = list(flat_rows(Path(results)))
    text = csv_text(rows[0], (row.values() for row in rows)) if rows else ""
    if out is None:
        click.echo(text, nl=False)
        return
    with writing(f"--out {out}"), wrote(Path(out)):
        write_atomically(Path(out), text)


def _checked_exporter(kind: str, push: str | None, out: str | None) -> ExporterSpec:
    """Return a format's exporter; UserError if it cannot write where the options say."""
    spec = load_plugins().exporters.get(kind)
    if push is not None and (push.count("/") != 1 or not all(push.split("/"))):
        raise UserError(f"--push {push}: expected the form owner/name.")
    if push is not None and spec.repository is None:
        raise UserError(f"--format {kind} is for no repository on the Hub.")
    if push is None and out is None and spec.several:
        raise UserError(f"--format {kind} writes a folder: name it with --out.")
    if out is not None and spec.several:
        target = Path(out)
        other_kind = target.is_symlink() or (target.exists() and not target.is_dir())
        if other_kind or (not spec.adds and target.is_dir() and any(target.iterdir())):
            raise UserError(
                f"--out {target} already exists and is not an empty folder. Name a new one."
            )
    return spec


@contextmanager
def _exported(
    view: RunView, spec: ExporterSpec, params: dict[str, str], out: str | None
) -> Iterator[Path]:
    """Let an exporter write, and yield the temporary folder of its files.

    For a format of several files it lies beside the folder `out`, into which they can be moved.
    """
    parent = None
    if out is not None and spec.several:
        parent = Path(out).parent
        parent.mkdir(parents=True, exist_ok=True)
    with (
        writing("The files" if out is None else f"--out {out}"),
        TemporaryDirectory(prefix=".bench-export-", dir=parent, ignore_cleanup_errors=True) as name,
    ):
        yield _export(view, spec, params, Path(name))


def _write(files: dict[str, Path], out: str, several: bool) -> None:
    """Move files into the folder `out`, or write the only one to the file `out`."""
    if not several:
        with wrote(Path(out)):
            write_atomically(Path(out), next(iter(files.values())).read_bytes())
        return
    size = sum(file.stat().st_size for file in files.values())
    for name, file in files.items():
        place = resolve_inside(Path(out), name)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
    say(f"{out}: {len(files)} files, {_format_size(size)}", err=True)


def _print_steps(spec: ExporterSpec, run: str, out: str, results: str, pushed: bool) -> None:
    """Print what can be done with a run that was written to `out`."""
    steps = []
    if spec.name == ERROR_TABLES:
        replay = f"bench replay {shlex.quote(out)} --strategy race"
        steps.append(("replay a strategy on it", replay))
    if spec.repository is not None and not pushed:
        words = ["bench", "export", run, "--format", spec.name, "--push", "OWNER/NAME", "--dry-run"]
        push = shlex.join(words) + results_argument(results)
        steps.append(("see what would go to the Hub", push))
    if steps:
        next_steps(*steps)


def _export(view: RunView, spec: ExporterSpec, params: dict[str, str], scratch: Path) -> Path:
    """Let an exporter write, and return the folder in `scratch` with copies of its files.

    Raises PluginError if it wrote links or special files, no file, or more than its spec declares.
    """
    written, copies = scratch / "written", scratch / "files"
    written.mkdir()
    exporter: Exporter = make_from(spec, spec.resolve_parameters(params))
    with guard(spec.label, "write()", (UserError, OSError)):
        exporter.write(view, written)
    try:
        names = own_files(written)
    except UserError as error:
        raise PluginError(spec.label, f"what write() wrote cannot be taken: {error}") from None
    if not names or (len(names) > 1 and not spec.several):
        wrong = f"{len(names)} files ({some_of(names)})" if names else "no file"
        expected = "files" if spec.several else "one file, because its spec has not several=True"
        raise PluginError(spec.label, f"write() wrote {wrong}; expected {expected}")
    for name in names:
        (copies / name).parent.mkdir(parents=True, exist_ok=True)
        take_file(written, name, copies / name)
    return copies


def _text_of(files: dict[str, Path]) -> str | None:
    """Return the text of the first file; None if it is binary."""
    content = next(iter(files.values())).read_bytes()
    with suppress(UnicodeDecodeError):
        return None if b"\0" in content else content.decode().rstrip("\n")
    return None


def _print_pushed(
    files: dict[str, Path], spec: ExporterSpec, repository: str, address: str | None
) -> None:
    """Print which files were sent to `address`; if it is None, which would be sent."""
    kind, sizes = str(spec.repository), {name: f.stat().st_size for name, f in files.items()}
    end_with_json({"repository": repository, "kind": kind, "files": sizes, "address": address})
    for name, size in sizes.items():
        say(f"{kind} {repository}: {name} ({_format_size(size)})")
    if address is None and not spec.several and (text := _text_of(files)) is not None:
        say(text)
    say("Nothing was sent." if address is None else f"Sent: {address}")
    if address is None:
        next_steps(("send it", "the same command without --dry-run"))


def _format_size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"
