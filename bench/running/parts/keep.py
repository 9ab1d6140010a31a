"""What is kept of a run, and where."""

from __future__ import annotations

from bench.running.parts.setting import Part, Text, setting


class KeepSettings(Part):
    """The results of a run."""

    title = "What is kept"

    results: Text = setting("results", "The folder that runs are stored in.", classify=True)
    save_errors: bool = setting(False, "Keep the error of every cell evaluated.")
    fresh: bool = setting(False, "Start over instead of resuming a stored run.")
    min_accuracy: float | None = setting(
        None, "Exit with 4 when the accuracy is lower.", ge=0, le=1
    )
