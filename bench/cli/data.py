"""`bench check-data`. Check a dataset for problems.

Group: Score images, 3.

`bench prompts`. Show the prompts of a dataset.

Group: Score images, 4.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.cli.command import command, end_with_json
from bench.cli.output import PROBLEMS_FOUND, next_steps, say
from bench.cli.settings import config_from_options, config_options
from bench.inputs.checking import check_data
from bench.reports.terminal.tables import print_rows
from bench.running.command import same_options
from bench.running.parts.data import find_dataset
from bench.running.parts.settings import about, options_of
from bench.running.prepare import read_content


@command()
@config_options(about("data"))
def check_data_command(dataset: str, **options: Any) -> None:
    """Read every split of DATASET once and report problems.

    It checks the counts, and finds images that cannot be read, duplicates within and across splits,
    classes without images, class names that look like ids, and wrong checksums of the original
    download. The exit code is 4 if there is a problem.
    """
    config = config_from_options(dataset=dataset, **options)
    data = find_dataset(config)
    check = check_data(data, config.split)
    counts = {"dataset": data.name, "splits": check.splits, "classes": check.classes}
    end_with_json(
        {**counts, "findings": [asdict(finding) for finding in check.findings]},
        PROBLEMS_FOUND if check.findings else 0,
    )
    if check.findings and not check.splits:
        say(f"{data.slug} could not be read.")
    else:
        what = f"{check.classes:,} classes; images" if check.classes else "items"
        splits = ", ".join(f"{name} {images:,}" for name, images in check.splits.items()) or "none"
        say(f"{data.slug}: {what}: {splits}.")
    if check.findings:
        rows = [[finding.kind, finding.split, finding.said] for finding in check.findings]
        print_rows(["what", "split", "is wrong"], rows)
        return
    say("Nothing is wrong.")
    if data.spec.backbone:
        next_steps(("score it", same_options(config)))
    else:
        next_steps(
            ("choose a model (backbone) for it", "bench list backbones"),
            ("see what it costs", same_options(config, "--dry-run", backbone="NAME")),
        )


@command()
@config_options([*about("data"), *options_of("prompts")])
def prompts_command(dataset: str, **options: Any) -> None:
    """Show the prompts of DATASET, with the number of tokens that the backbone counts.

    If the classes were renamed, their names in the data are shown too.
    """
    config = config_from_options(dataset=dataset, **options)
    content = read_content(config)
    classes, prompts = content.class_names, content.prompts
    backbone_name = content.names.source.name
    counts: Sequence[int | None] = [None] * len(prompts.texts)
    if content.absent is not None:
        note = f"No token counts: {content.absent}"
    elif (counts_and_limit := content.token_counts()) is None:
        note = f"The backbone {backbone_name} cannot count tokens."
    else:
        counts, limit = counts_and_limit
        note = f"Tokens of {backbone_name}, start and end included; at most {limit}."
    rows = [
        {"class": classes.names[c], "found": classes.spellings[c], "prompt": text, "tokens": count}
        for text, c, count in zip(prompts.texts, prompts.class_of_prompt, counts, strict=True)
    ]
    end_with_json(rows)
    heads = {"class": "class", "found": "in the data", "prompt": "prompt", "tokens": "tokens"}
    keys = [key for key in heads if key != "found" or classes.changes]
    print_rows([heads[key] for key in keys], [[row[key] for key in keys] for row in rows])
    say(note)
    backbone = config.backbone or (None if content.names.dataset.backbone else "NAME")
    plan = same_options(config, "--dry-run", backbone=backbone)
    next_steps(("see what scoring with them costs", plan))
