"""Help that shows the settings of a run by chapter."""

from __future__ import annotations

import click

from bench.running.settings import chapters

OF_THE_COMMAND = ("dry_run", "as_json")  # options of a command that are most used


class Sectioned(click.Command):
    """A command whose help shows its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings by section, and then the command's other options."""
        options = {p.name: p for p in self.get_params(ctx) if isinstance(p, click.Option)}
        (first, most_used), *rest = chapters()
        sections = [
            (title, [options.pop(name) for name in names if name in options])
            for title, names in [(first, [*most_used, *OF_THE_COMMAND]), *rest]
        ]
        for title, shown in [*sections, ("This command", list(options.values()))]:
            records = [record for one in shown if (record := one.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
