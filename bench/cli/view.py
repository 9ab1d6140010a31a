"""`bench view`. Show the stored runs in a browser, as they are made.

Group: Look at results, 3.
"""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.output import next_steps, results_option, say
from bench.cli.report import data_dirs_option, data_folders
from bench.errors import UserError
from bench.machine.offline import offline


@click.command()
@click.option("--results", default="results", envvar="BENCH_RESULTS", help="Where runs are stored.")
@data_dirs_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="The port on 127.0.0.1; 0: any (default: the first free one from 8421 on).",
)
@offline()
def command(results: str, data_dirs: tuple[str, ...], port: int | None) -> None:
    """Show the stored runs in a browser, on pages that keep themselves up to date.

    Progress, accuracy with its interval, run against run, and pictures of mistakes. The pages are
    served on 127.0.0.1 to this machine alone, only read, and ask no network. Ctrl-C ends it.
    """
    if not Path(results).is_dir():
        raise UserError(
            f"There is no folder {results}. `bench run digits` makes the first run in ./results."
        )
    from bench.view.pages import Pages
    from bench.view.server import Server, serve
    from bench.view.stored import Stored

    server = Server(Pages(Stored(Path(results), data_folders(data_dirs))), port)

    def ready(url: str) -> None:
        say(f"{results} is shown at {url} (Ctrl-C ends it)")
        next_steps(("keep it as one page to pass on", f"bench report{results_option(results)}"))

    serve(server, ready)
