"""The settings by what they are for: the order in which help and documents show them."""

from __future__ import annotations

import click

SECTIONS = {
    "Most used": (
        *("backbone", "strategy", "params", "template", "split", "data_dir", "limit"),
        *("dry_run", "as_json"),
    ),
    "What is scored": (
        *("labels", "image_column", "label_column", "id_column", "skip_unlabelled", "shard"),
        *("fit", "resolution", "normalize", "views", "control"),
    ),
    "What is asked": ("class_names", "prompts", "template_rule", "candidates_from", "top"),
    "What scores it": ("weights", "revision", "dtype", "fit_split", "risk"),
    "How an error is measured": (
        *("loss", "space", "weighting", "guidance", "subtract_null", "latent"),
        *("levels", "plan", "seed", "noise", "noise_per"),
    ),
    "Where it runs": (
        *("device", "batch_size", "executor", "workers", "ray_address", "offline"),
        *("tf32", "compile", "layout", "attention"),
    ),
    "What is kept": ("results", "save_errors", "fresh", "min_accuracy"),
}


class Sectioned(click.Command):
    """A command whose help shows its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings by section, and then the command's other options."""
        options = {p.name: p for p in self.get_params(ctx) if isinstance(p, click.Option)}
        sections = [
            (title, [options.pop(name) for name in names if name in options])
            for title, names in SECTIONS.items()
        ]
        for title, shown in [*sections, ("This command", list(options.values()))]:
            records = [record for one in shown if (record := one.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
