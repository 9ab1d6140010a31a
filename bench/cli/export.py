"""`bench export`. Write a run for other tools, or send it to the Hub.

Group: Many runs, repeated and published, 4.
"""

import shlex
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import click

from bench.cli.command import Params, Results, command, end_with_json, names_of
from bench.cli.output import named_run, next_steps, results_argument, say
from bench.contracts.exporters import Exporter
from bench.contracts.specs import ExporterSpec
from bench.discovery.guard import guard
from bench.discovery.loading import load_plugins
from bench.discovery.targets import make_from
from bench.errors import PluginError, UserError, some_of
from bench.machine.files import own_files, resolve_inside, take_file, write_atomically, writing
from bench.machine.pushing import push_folder
from bench.reports.run_view import RunView, read_view

REPLAYED = "errors"  # format whose folder can be replayed
TAKEN = "files"  # folder of the copies of what an exporter wrote


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
    spec, target = load_plugins().exporters.get(kind), None if out is None else Path(out)
    if push is not None and (push.count("/") != 1 or not all(push.split("/"))):
        raise UserError(f"--push {push}: expected the form owner/name.")
    if push is not None and spec.repository is None:
        raise UserError(f"--format {kind} is for no repository on the Hub.")
    if push is None and target is None and spec.several:
        raise UserError(f"--format {kind} writes a folder: name it with --out.")
    view, beside = read_view(named_run(run, results, err=True)), None
    if target is not None and spec.several:
        _check_folder(target, spec)
        beside = target.parent
        beside.mkdir(parents=True, exist_ok=True)
    with (
        writing("The files" if out is None else f"--out {out}"),
        TemporaryDirectory(prefix=".bench-export-", dir=beside, ignore_cleanup_errors=True) as name,
    ):
        files = _export(view, spec, params, Path(name))
        sizes = {name: file.stat().st_size for name, file in files.items()}
        if push is not None:
            what, address = f"Add {kind} of {view.manifest.run_id}", None
            if not dry_run:
                place = push, str(spec.repository)
                address = push_folder(Path(name, TAKEN), *place, what, pull_request, create)
            _print_pushed(files, sizes, spec, push, address)
        elif target is None:
            if (text := _text_of(files)) is None:
                raise UserError(f"--format {kind} is not text: name a file with --out.")
            click.echo(text)
        elif spec.several:
            for name, file in files.items():
                place_of = resolve_inside(target, name)
                place_of.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place_of)
            size = _format_size(sum(sizes.values()))
            say(f"{out}: {len(files)} files, {size}", err=True)
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


def _check_folder(target: Path, spec: ExporterSpec) -> None:
    taken = target.is_symlink() or (target.exists() and not target.is_dir())
    if taken or (not spec.adds and target.is_dir() and any(target.iterdir())):
        raise UserError(
            f"--out {target} already exists and is not an empty folder. Name a new one."
        )


def _export(
    view: RunView, spec: ExporterSpec, params: dict[str, str], scratch: Path
) -> dict[str, Path]:
    """Let an exporter write, and return copies of its files in `scratch`, by name.

    Raises PluginError if it wrote links or special files, no file, or more than its spec declares.
    """
    written, taken = scratch / "written", scratch / TAKEN
    written.mkdir()
    exporter: Exporter = make_from(spec, spec.resolve_parameters(params))
    with guard(spec.label, "write()", (UserError, OSError)):
        exporter.write(view, written)
    try:
        names = own_files(written)
    except UserError as error:
        raise PluginError(spec.label, f"what write() wrote cannot be taken: {error}") from None
    if not names or (len(names) > 1 and not spec.several):
        many = f"{len(names)} files ({some_of(names)})" if names else "no file"
        expected = "files" if spec.several else "one file, because its spec has not several=True"
        raise PluginError(spec.label, f"write() wrote {many}; expected {expected}")
    for name in names:
        (taken / name).parent.mkdir(parents=True, exist_ok=True)
        take_file(written, name, taken / name)
    return {name: taken / name for name in names}


def _text_of(files: dict[str, Path]) -> str | None:
    """Return the text of the first file; None if it is binary."""
    content = next(iter(files.values())).read_bytes()
    with suppress(UnicodeDecodeError):
        return None if b"\0" in content else content.decode().rstrip("\n")
    return None


def _print_pushed(
    files: dict[str, Path],
    sizes: dict[str, int],
    spec: ExporterSpec,
    repository: str,
    address: str | None,
) -> None:
    """State which files were sent to an address; None: which would be."""
    kind = str(spec.repository)
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
