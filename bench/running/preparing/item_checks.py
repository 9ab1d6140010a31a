"""What items with texts of their own ask of a run's settings and strategy."""

from __future__ import annotations

from bench.contracts.dataset import asks_for_images
from bench.errors import UserError
from bench.inputs.items import ItemRows, ItemTable
from bench.inputs.prompts import Prompts
from bench.inputs.split import Split
from bench.running.resolve import Resolved
from bench.store.documents import Items


def check_items(resolved: Resolved, table: ItemTable) -> None:
    """Refuse what cannot be used with these items.

    Raises:
        UserError: a setting is about classes, or the strategy cannot decide such items.
    """
    config, name = resolved.config, resolved.dataset.name
    given = {
        "--template": config.template is not None,
        "--template-rule": config.template_rule != "best",
        "--prompts": config.prompts is not None,
        "--class-names": config.class_names is not None,
        "--skip-unlabelled": config.skip_unlabelled,
    }
    for option in (option for option, said in given.items() if said):
        raise UserError(
            f"{option} is about classes, and every item of dataset {name!r} has texts of its own."
        )
    strategy = resolved.strategy_spec.name
    if resolved.strategy.linearises:
        raise UserError(
            f"Strategy {strategy!r} linearises at a mixture of prompts that all images share, and"
            f" every item of dataset {name!r} has texts of its own. `race` needs no gradients."
        )
    if asks_for_images(*table.shapes[0]) and not resolved.strategy.same_draws:
        raise UserError(
            f"The items of dataset {name!r} ask which image fits a text. Strategy {strategy!r}"
            " gives up texts of one image, and does not compare images. Use --strategy full."
        )


def warn_of_items(resolved: Resolved, split: Split) -> list[str]:
    """Say so where the strategy serves the text score alone."""
    assert split.items is not None
    images, texts = split.items.table.shapes[0]
    if images == 1 or texts == 1 or resolved.strategy.same_draws:
        return []
    return [
        f"Strategy {resolved.strategy_spec.name!r} gives up texts of one image before others: there"
        " will be a text score, and no image and group score, which compare errors across images."
        " --strategy full gives all three."
    ]


def describe_items(resolved: Resolved, items: ItemRows, pool: Prompts) -> Items:
    """Return what the manifest says of the items."""
    table = items.table
    expected = table.chance
    images = table.shapes[0][0]
    both = {"image_chance": expected.image, "group_chance": expected.group}
    return Items(
        images=images,
        texts=max(texts for _, texts in table.shapes),
        pool=len(pool.texts),
        chance=expected.answer,
        images_compared=resolved.strategy.same_draws,
        **(both if expected.image is not None else {}),
    )
