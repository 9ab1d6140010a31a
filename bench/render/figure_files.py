"""Where a figure is to be written: checked before the work that it shows is done."""

from __future__ import annotations

from pathlib import Path

from bench.errors import UserError


def figure_file(option: str, given: str) -> Path:
    """Return the file that an option names, if a figure can be written there.

    Args:
        option: as the command line has it, such as `--plot`.
        given: the file; its suffix says the format.

    Raises:
        UserError: it is a folder, lies in none, or matplotlib does not know the format.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    path, known = Path(given), FigureCanvasBase.get_supported_filetypes()
    if path.is_dir():
        raise UserError(f"{option} {given}: it is a folder. Name a file in it: {path / 'plot.png'}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{option} {given}: there is no folder {path.parent}.")
    if path.suffix.lower().removeprefix(".") not in known:
        raise UserError(
            f"{option} {given}: the name ends with the format, which is one of"
            f" {', '.join(f'.{suffix}' for suffix in sorted(known))}."
        )
    return path
