"""What is asked: the prompts of the classes, and how several of them make one score."""

from __future__ import annotations

from typing import Literal

from bench.running.parts.setting import Chapter, Text, setting

Rule = Literal["best", "mean", "spread"]


class QuestionSettings(Chapter):
    """The prompts of a run."""

    title = "What is asked"

    template: Text | list[Text] | None = setting(
        None,
        "A prompt template with {class}, or a file of them, one per line; repeat for"
        " more (default: the dataset's).",
        identity="resolved",
        classify=True,
        most_used=True,
    )
    prompts: Text | None = setting(
        None,
        "A CSV file of prompts: prompt,classname,classidx; several per class allowed.",
        identity="content",
        classify=True,
    )
    template_rule: Rule = setting(
        "best",
        "How several prompts of a class make its score: best (of their scores), mean"
        " (of their errors), or spread (each draw uses one of them).",
        identity="run",
        classify=True,
    )
    candidates_from: Text | None = setting(
        None,
        "A stored run on the same images: only its best classes of each image are"
        " scored, --top of them.",
        identity="content",
    )
    top: int = setting(
        5,
        "How many classes of --candidates-from are scored for each image.",
        identity="content",
        gt=1,
    )
