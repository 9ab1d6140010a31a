"""The table of settings in docs/settings.md, made from the settings themselves.

`python tests/helpers/docs.py` writes it into the page.
"""

from __future__ import annotations

from pathlib import Path

from bench.running.settings import RunConfig

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
BEGIN, END = "<!-- made from the settings: python tests/helpers/docs.py -->", "<!-- end -->"


def settings_table() -> str:
    """Return a Markdown table with one row per setting: option, default, meaning."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for name, field in RunConfig.model_fields.items():
        option = {"dataset": "DATASET", "params": "--set"}.get(name, f"--{name.replace('_', '-')}")
        default = "" if field.is_required() or not field.default else f"`{field.default}`"
        if field.default_factory or isinstance(field.default, bool):
            default = ""
        rows.append(
            f"| `{option}` | {default} | {str(field.description).replace('|', chr(92) + '|')} |"
        )
    return "\n".join(rows)


def with_table(text: str) -> str:
    """Return the page with the table as it must be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{settings_table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
