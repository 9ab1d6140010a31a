"""What was measured, in one JSON file that is whole after every row, and as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

Value = str | float | int | bool | None
Row = dict[str, Value]
DONE, RUNNING, FAILED, CUT, SKIPPED = "done", "running", "failed", "cut off", "skipped"


@dataclass
class Measured:
    """What became of a part.

    Attributes:
        status: `done`, `running`, `failed`, `cut off` at its time limit, or `skipped`.
        estimate: seconds it was expected to take.
        seconds: that it took.
        why: it failed, was cut off or was skipped.
        rows: what it measured; also of a part that did not end.
    """

    status: str
    estimate: float
    seconds: float = 0.0
    why: str = ""
    rows: list[Row] = field(default_factory=list)


class Report:
    """The report of one machine.

    Args:
        file: the JSON file; its Markdown goes beside it.
        settings: what decides whether an earlier report can be continued.
    """

    def __init__(self, file: Path, settings: Row) -> None:
        self.file, self.settings = file, settings
        self.parts: dict[str, Measured] = {}
        if file.exists():
            found = json.loads(file.read_text())
            if found["settings"] != settings:
                raise SystemExit(
                    f"{file} was measured with {found['settings']}, not {settings}: name another"
                    " --out, or start over with --fresh."
                )
            self.parts = {name: Measured(**part) for name, part in found["parts"].items()}

    def write(self) -> None:
        """Write both files; each is replaced as a whole."""
        parts = {name: asdict(part) for name, part in self.parts.items()}
        report = {"settings": self.settings, "parts": parts}
        _replace(self.file, json.dumps(report, indent=1) + "\n")
        _replace(self.file.with_suffix(".md"), self.markdown())

    def ended(self, name: str) -> bool:
        """Tell whether a part need not be measured again."""
        return name in self.parts and self.parts[name].status == DONE

    @property
    def correct(self) -> bool:
        """Whether nothing failed, and all that was checked was right."""
        return all(
            part.status in (DONE, SKIPPED) and all(row.get("ok", True) for row in part.rows)
            for part in self.parts.values()
        )

    def markdown(self) -> str:
        """Return a table for each part."""
        said = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = ["# GPU check", "", f"`python benchmarks/gpu_check.py`: {said}."]
        for name, part in self.parts.items():
            took = f"{part.seconds:.0f} s of about {part.estimate:.0f} s"
            lines += ["", f"## {name}: {part.status}", "", part.why or f"Took {took}."]
            if part.rows:
                lines += ["", *table(part.rows)]
        return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a Markdown table; a column for each key that a row has."""
    head = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(key.replace('_', ' ') for key in head)} |", "|---" * len(head) + "|"]
    return lines + [f"| {' | '.join(_shown(row.get(key)) for key in head)} |" for row in rows]


def _shown(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def _replace(file: Path, text: str) -> None:
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.replace(file)
