"""Turns recordings into every figure and table of the study, and into its page.

    python studies/how-many-draws/analyse.py --results DIR --out studies/how-many-draws/rehearsal

DIR holds runs (`bench study … --results DIR`) or exported recordings. Every number on the page is
from these runs; the same command on other recordings makes the same page of them. `--rehearsal`
says above the page that its models are small ones.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import figures
from measuring import Result, Stored, beside, measure, read_results

from bench.errors import UserError
from bench.machine.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

REHEARSAL = """> **A rehearsal with small models.** These recordings are of small models or random
> weights. They show that every step runs, and say nothing about Stable Diffusion."""


def name_of(measured: Result) -> str:
    """Return how tables call a recording."""
    return f"{measured['backbone']} on {measured['dataset']}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in percent; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def with_interval(value: float, ends: Sequence[float]) -> str:
    """Return a share in percent with its interval."""
    return f"{percent(value)} ({percent(ends[0])}–{percent(ends[1])})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def primary(recordings: Sequence[Result]) -> Iterator[str]:
    """Yield the section of the primary endpoint."""
    rows = []
    for measured in recordings:
        least, ceiling = measured["least_draws"], measured["ceiling"]
        rows.append(
            [
                name_of(measured),
                _of(measured["images"], measured["images_wanted"]),
                str(measured["draws"]),
                with_interval(ceiling["agreement"], ceiling["ci95"]),
                _number(least["cost"]),
                f"{_number(least['low'])}–{_number(least['high'])}",
                _number(least["shown"]),
            ]
        )
    yield "## Draws within one point of the ceiling"
    yield table(
        ["recording", "images", "draws", "ceiling, %", "least draws", "95 %", "shown with"], rows
    )
    yield (
        "The ceiling is the agreement of two halves of the draws, which share none. *Least draws*:"
        " the fewest evenly spread draws of one half whose agreement with the other half is at most"
        " one point below the ceiling; its interval is of resampled images. *Shown with*: the"
        " fewest whose agreement is shown to be within one point (lower end of the 95 % interval of"
        " the paired difference). A value that equals half of the draws is only a lower bound."
    )
    for measured in recordings:
        yield _sentence(measured)
    yield "![agreement and accuracy by draws](draws.png)"
    yield table(
        ["recording", "draws", "evaluations", "agreement, %", "shared draws, %", "accuracy, %",
         "± over draws"],
        [
            [
                name_of(measured),
                str(row["draws"]),
                f"{row['evaluations']:,}",
                with_interval(row["agreement"], row["agreement_ci95"]),
                percent(row["with_shared_draws"]),
                percent(row["accuracy"]),
                percent(row["accuracy_sd_over_draws"]),
            ]
            for measured in recordings
            for row in measured["curve"]
        ],
    )  # fmt: skip
    yield (
        "*Shared draws*: agreement with the decision of all draws, of which the few are a part; it"
        " is what a sweep against its own recording shows. *± over draws*: the standard deviation"
        " of accuracy over disjoint sets of so many draws, which is what another seed does; few"
        " draws of another set also lie at other levels."
    )


def _sentence(measured: Result) -> str:
    curve, least = measured["curve"], measured["least_draws"]["cost"]
    at = next(row for row in curve if row["draws"] == least)
    inflated = at["with_shared_draws"] - at["agreement"]
    enough = f"{_number(least)} draws per prompt ({at['evaluations']:,} evaluations per image)"
    if at is curve[-1]:
        enough = f"only the whole half, {enough}, is within one point, so that more may be needed:"
        enough += " they"
    return (
        f"**{name_of(measured)}**: {enough} decide as an independent half of the recording does on"
        f" {percent(at['agreement'])} % of the images; the ceiling is"
        f" {percent(measured['ceiling']['agreement'])} %. Against all draws, the same ones"
        f" included, the figure would be {percent(at['with_shared_draws'])} %"
        f" ({100 * inflated:+.1f} points). One draw alone is right on"
        f" {percent(curve[0]['accuracy'])} %, all draws on"
        f" {percent(measured['accuracy']['accuracy'])} %."
    )


def by_strategy(recordings: Sequence[Result]) -> Iterator[str]:
    """Yield the section of cost by strategy, and of whom each loses."""
    yield "## Evaluations per strategy within one point of the ceiling"
    rows, losses = [], []
    for measured in recordings:
        whole = measured["curve"][-1]["evaluations"]
        for row in measured["strategies"]:
            least = row["least_evaluations"]
            setting = f"{row['strategy']} {row['setting'] or ''}".strip()
            at = next((s for s in row["settings"] if s["evaluations"] == least["cost"]), None)
            rows.append(
                [
                    name_of(measured),
                    setting,
                    _number(least["cost"]),
                    f"{_number(least['low'])}–{_number(least['high'])}",
                    f"{whole / least['cost']:.1f}" if least["cost"] else "–",
                    percent(at and at["agreement"]),
                    percent(at and at["accuracy"]),
                ]
            )
            if (lost := row["loses"]) is not None:
                losses.append(
                    [
                        name_of(measured),
                        setting,
                        f"{lost['images']:.1f}",
                        f"{lost['gains']:.1f}",
                        percent(lost["share_in_the_lowest_quarter_of_margins"], 0),
                        ", ".join(f"{c} {percent(v, 0)}" for c, v in lost["classes"].items() if v)
                        or "none",
                    ]
                )
    yield table(
        ["recording", "cheapest setting", "evaluations", "95 %", "times cheaper", "agreement, %",
         "accuracy, %"],
        rows,
    )  # fmt: skip
    yield (
        "Of the settings that `bench sweep` tries, replayed on one half of the draws and compared"
        " with the other half, both ways. The ceiling is that of this one split: the agreement of"
        " `full`. *Times cheaper*: than the whole half."
    )
    yield "![agreement and accuracy by evaluations](strategies.png)"
    yield "## Whom each strategy loses"
    yield table(
        ["recording", "setting", "lost images", "gained", "lost at small margins, %",
         "classes that lose most, % of their right decisions"],
        losses,
    )  # fmt: skip
    yield (
        "Images that the whole half decides right and the strategy does not (the mean of both"
        " halves), and the other way round. *At small margins*: those in the lowest quarter of"
        " margins, measured on the other half."
    )


def by_level(recordings: Sequence[Result]) -> Iterator[str]:
    """Yield the section of informative levels."""
    yield "## Informative levels"
    for measured in recordings:
        parts = measured["levels"]["parts"]
        best = max(parts, key=lambda part: part["accuracy"])
        worst = min(parts, key=lambda part: part["accuracy"])
        yield (
            f"**{name_of(measured)}**: of {len(parts)} neighbouring groups of draws, timesteps"
            f" {best['from']}–{best['to']} alone decide right on"
            f" {with_interval(best['accuracy'], best['ci95'])} %, and {worst['from']}–{worst['to']}"
            f" on {with_interval(worst['accuracy'], worst['ci95'])} %; all draws on"
            f" {percent(measured['accuracy']['accuracy'])} %."
        )
    yield "![accuracy of single draws by timestep](levels.png)"


def between_models(groups: Sequence[Result]) -> Iterator[str]:
    """Yield the section of other models on the same images."""
    yield "## Beside it: other models, and chance"
    for group in groups:
        rows = [[row["name"], with_interval(row["accuracy"], row["ci95"])] for row in group["rows"]]
        yield f"**{group['dataset']}**, {group['images']} images that all of them decided:"
        yield table(["model", "accuracy, %"], rows)
        pairs = [
            [pair["a"], pair["b"], "–" if pair["kappa"] is None else f"{pair['kappa']:.2f}"]
            for pair in group["error_consistency"]
            if "random" not in (pair["a"], pair["b"]) and "majority" not in (pair["a"], pair["b"])
        ]
        if pairs:
            yield table(["model", "model", "error consistency"], pairs)
    yield (
        "Error consistency is Cohen's kappa of being right on the same images (Geirhos, Meding &"
        " Wichmann, 2020): 0 as two models whose errors are independent, 1 for the same errors."
    )


def recorded(recordings: Sequence[Result]) -> Iterator[str]:
    """Yield the section of what was recorded."""
    yield "## What was recorded"
    yield table(
        ["recording", "dtype", "images", "prompts", "draws", "cells", "bytes per image",
         "bytes per cell", "accuracy, %"],
        [
            [
                f"{name_of(m)} (`{m['run_id']}`)",
                m["dtype"],
                _of(m["images"], m["images_wanted"]),
                str(m["prompts"]),
                str(m["draws"]),
                f"{m['cells']:,}",
                f"{m['bytes'] / m['images']:,.0f}",
                f"{m['bytes'] / m['cells']:.2f}",
                with_interval(m["accuracy"]["accuracy"], m["accuracy"]["ci95"]),
            ]
            for m in recordings
        ],
    )  # fmt: skip


SECTIONS: tuple[Callable[[Sequence[Result]], Iterator[str]], ...] = (
    primary,
    by_strategy,
    by_level,
)


def page(recordings: Sequence[Result], groups: Sequence[Result], rehearsal: bool) -> str:
    """Return the page in Markdown."""
    parts = ["# How many draws are enough?"]
    parts += [REHEARSAL] if rehearsal else []
    parts.append(
        "[The plan](../README.md) was written before the data."
        " This page, its figures and its numbers were written by `python"
        " studies/how-many-draws/analyse.py`; [results.json](results.json) has all of them."
    )
    for section in SECTIONS:
        parts += section(recordings)
    parts += [*between_models(groups), *recorded(recordings)]
    return "\n\n".join(parts) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _of(there: int, wanted: int) -> str:
    return str(there) if there == wanted else f"{there} of {wanted}"


def analyse(stored: Stored, out: Path, rehearsal: bool) -> None:
    """Write results, figures and page into a folder."""
    recordings = [measure(recording) for recording in stored.recordings]
    groups = beside(stored)
    out.mkdir(parents=True, exist_ok=True)
    content = {"recordings": recordings, "beside": groups}
    write_atomically(out / "results.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    figures.draws(recordings, out / "draws.png")
    figures.strategies(recordings, groups, out / "strategies.png")
    figures.levels(recordings, out / "levels.png")
    write_atomically(out / "README.md", page(recordings, groups, rehearsal))


def main() -> int:
    """Analyse; 2 where data is missing or wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the page")
    parser.add_argument("--rehearsal", action="store_true", help="the models are small ones")
    options = parser.parse_args()
    try:
        analyse(read_results(options.results), options.out, options.rehearsal)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"{options.out / 'README.md'}: figures, tables and results.json are beside it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
