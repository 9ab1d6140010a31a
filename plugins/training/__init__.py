"""Trains the two backbones that ship with the toolkit, from data to weights and model card.

The path, top to bottom: ``data`` (images of a split) → ``autoencoder`` (latents) → ``denoiser``
(text-conditioned UNet) → ``classify`` (accuracy as a diffusion classifier) → ``card``. ``recipes``
holds every number that was chosen.
"""

from __future__ import annotations

import click

from bench import hookimpl


@hookimpl
def register_commands(cli: click.Group) -> None:
    """Add `bench train`."""
    from bench_plugins.training.command import train

    cli.add_command(train)
