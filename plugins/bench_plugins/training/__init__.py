"""`bench train`: train the two included backbones, from data to weights and model card.

`pipeline` runs the other modules in order: `data`, `autoencoder`, `denoiser` and its `learning`,
`judging` (accuracy as a diffusion classifier), `card`. `recipes` holds the hyperparameters.
"""

from __future__ import annotations

from pathlib import Path

import click

from bench import hookimpl

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("recipe", type=click.Choice(["digits", "landuse"]))
@click.option("--data-dir", type=_FOLDER, help="A local copy of the dataset, as for `bench run`.")
@click.option("--out", type=_FOLDER, help="The pipeline folder to write (default: ./tiny_RECIPE).")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Training steps of the denoiser, instead of the recipe's.",
)
@click.option(
    "--no-test", is_flag=True, help="Measure on validation images only, not on test images."
)
def train(
    recipe: str,
    data_dir: Path | None,
    out: Path | None,
    seed: int,
    steps: int | None,
    no_test: bool,
) -> None:
    """Reproduce an included backbone, from data to weights and model card.

    The same command resumes an interrupted training from the checkpoints in OUT.training.
    """
    from bench_plugins.training.pipeline import train_backbone

    out = out or Path(f"tiny_{recipe}")
    figures = train_backbone(recipe, data_dir, out, seed, steps, test=not no_test)
    part = "validation" if no_test else "test"
    correct, n = figures[part]["adaptive"], figures[part]["n"]
    click.echo(f"{out}: {correct / n:.4f} on {n} {part} images (adaptive)", err=True)


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `bench train`."""
    cli.add_command(train)
