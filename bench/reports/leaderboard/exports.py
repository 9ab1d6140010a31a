"""Write the published leaderboard into a page, with its picture."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from bench.errors import UserError
from bench.machine.files import write_atomically, writing
from bench.reports.figures.cost import board_panel, draw_cost
from bench.reports.leaderboard.board import board_tables, make_boards
from bench.reports.leaderboard.ranking import leaderboard
from bench.reports.leaderboard.rows import LeaderboardRow
from bench.reports.text import to_markdown
from bench.store.shipped import is_packed, pack

# Lines around the table in a README.
BEGIN, END = "<!-- leaderboard: bench results render -->", "<!-- end of leaderboard -->"
PICTURE = "leaderboard.png"


def render(published: Path, readme: Path, archive: Path | None = None) -> list[Path]:
    """Write the leaderboard of the published results, and return the written files (UserError).

    In `readme`, what is between the lines `BEGIN` and `END` is replaced. `archive` is the file of
    the published runs that comes with the package; None: not written.
    """
    rows = own_boards(published)
    contents: dict[Path, str | bytes] = {readme: _with_table(readme, rows)}
    if archive and not is_packed(published, archive):
        contents[archive] = pack(published)
    if rows:
        contents[published / PICTURE] = draw(rows)
    with writing("The leaderboard"):
        for file, content in contents.items():
            write_atomically(file, content)
    return list(contents)


def find_stale(published: Path, readme: Path, archive: Path | None = None) -> list[str]:
    """Return the files that `render` would change, as one sentence each."""
    rows = own_boards(published)
    changes = []
    if _read(readme) != _with_table(readme, rows):
        changes.append(f"{readme} does not show the results in {published}")
    if archive and not is_packed(published, archive):
        changes.append(f"{archive} does not have the results in {published}")
    if rows and _read_digest(published / PICTURE) != _compute_digest(rows):
        changes.append(f"{published / PICTURE} was not drawn from these results")
    return changes


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read: {error}. This command works in a clone of the repository."
        ) from None


def own_boards(published: Path) -> list[LeaderboardRow]:
    """Return the rows of the boards that have a run of this toolkit, not only reported results."""
    rows = leaderboard(published)
    own = {r.board[:3] for r in rows if r.kind != "reported"}
    return [r for r in rows if r.board[:3] in own]


def _with_table(readme: Path, rows: Sequence[LeaderboardRow]) -> str:
    before, begin, rest = _read(readme).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme} needs the lines {BEGIN!r} and {END!r} around the table.")
    return f"{before}{BEGIN}\n{to_markdown(board_tables(rows))}{END}{after}"


def _compute_digest(rows: Sequence[LeaderboardRow]) -> str:
    tables = board_tables(rows)
    shown = [[table.title, table.above, table.head, table.texts, table.sources] for table in tables]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def _read_digest(picture: Path) -> str | None:
    from PIL import Image

    if not picture.is_file():
        return None
    with Image.open(picture) as image:
        return image.info.get("Source")


def draw(rows: Sequence[LeaderboardRow]) -> bytes:
    """Return a plot of accuracy with its interval against cost, a panel per board, as PNG.

    The digest of the rows is in the picture's metadata, so that `find_stale` can compare it.
    """
    panels = (board_panel(board, named=True) for board in make_boards(rows))
    drawing = draw_cost([panel for panel in panels if panel is not None])
    return drawing.png(Source=_compute_digest(rows))
