"""The table of settings in docs/settings.md, made from the settings themselves.

`python tests/helpers/docs.py` writes it into the page.
"""

from __future__ import annotations

from pathlib import Path

from bench.running.settings import RunConfig, chapters
from bench.running.settings.declaration import help_of

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGIN, END = "<!-- made from the settings: python tests/helpers/docs.py -->", "<!-- end -->"


def settings_table() -> str:
    """Return the settings by section, one row each: option, default, meaning."""
    lines = ["## All settings", "", f"`DATASET`: {help_of(RunConfig.model_fields['dataset'])}"]
    for title, names in chapters():
        lines += ["", f"### {title}", "", "| option | default | meaning |", "|---|---|---|"]
        lines += [_row(name) for name in names if name in RunConfig.model_fields]
    return "\n".join(lines)


def _row(name: str) -> str:
    field = RunConfig.model_fields[name]
    option = "--set" if name == "params" else f"--{name.replace('_', '-')}"
    known = field.default not in (None, {}) and not isinstance(field.default, bool)
    shown = known and not field.is_required()
    default = f"`{field.default}`" if shown else ""
    meaning = help_of(field).replace("|", "\\|")
    return f"| `{option}` | {default} | {meaning} |"


def with_table(text: str) -> str:
    """Return the page with the table as it must be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{settings_table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
