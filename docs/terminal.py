"""Draw the output of a first run, for the README and the first page of the site.

Times are left out, because they depend on the machine.

python docs/terminal.py     # writes docs/terminal.svg
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURE = Path(__file__).with_name("terminal.svg")
COMMAND = "bench run digits"
WIDTH = 84  # columns
TIMES = re.compile(r", [\d,.]+ s scoring.*? in all", re.DOTALL)
# Fonts of the machine, so that the picture loads nothing from the network.
FORMAT = re.sub(r"@font-face {{.*?}}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code", "ui-monospace, SFMono-Regular, Menlo, Consolas"
)


def printed(folder: Path) -> str:
    """Run the command in `folder`, and return its output on stdout with colours."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "FORCE_COLOR": "1"}
    command = [sys.executable, "-m", *COMMAND.split()]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return TIMES.sub("", done.stdout)


def draw(text: str) -> str:
    """Return an SVG picture of a terminal in which the command printed `text`."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.assemble(("$ ", "bold green"), (COMMAND, "bold")))
    console.print(Text.from_ansi(text.rstrip()))
    return console.export_svg(
        title="bench", theme=MONOKAI, code_format=FORMAT, unique_id="terminal"
    )


def shown(picture: str) -> str:
    """Return the text of a picture, one line per line of the terminal."""
    lines: dict[float, list[tuple[float, str]]] = {}
    pattern = r'<text class="terminal-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>'
    for x, y, text in re.findall(pattern, picture, re.DOTALL):
        lines.setdefault(float(y), []).append((float(x), unescape(text).replace("\xa0", " ")))
    return "\n".join("".join(part for _, part in sorted(lines[y])).rstrip() for y in sorted(lines))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        PICTURE.write_text(draw(printed(Path(name))), "utf-8")
