"""Render matplotlib figures: as inline SVG that follows a page's colours, or to files."""

import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bench.machine.files import writing
from bench.machine.libraries import Figure


@dataclass(frozen=True)
class Palette:
    """The colours of a figure."""

    ink: str
    muted: str
    line: str
    right: str
    wrong: str


# In a page each colour is replaced by a variable of the style sheet, so that dark mode changes the
# figures too. These placeholders only have to differ.
PAGE = Palette("#000001", "#000002", "#000003", "#000004", "#000005")
# The style sheet's colours on white, for files and notebooks.
PAPER = Palette("#1b1f24", "#57606a", "#d5dae0", "#1f5fbf", "#ad3c0e")
# The style sheet's colours on a dark page.
DARK = Palette("#e9ecf0", "#a7b0ba", "#39414a", "#82b1ff", "#ff9d6e")


@dataclass(frozen=True)
class Drawing:
    """A figure whose colours are chosen when it is rendered."""

    plot: Callable[[Figure, Palette], None]  # draws in the colours of a palette
    size: tuple[float, float]  # width and height, inches; 4.6 wide stays readable on a phone
    label: str  # text for screen readers

    def figure(self, colours: Palette = PAPER) -> Figure:
        """Return the figure, for a notebook or a file."""
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(_style(colours)):
            figure = Figure(self.size, layout="constrained")
            self.plot(figure, colours)
        return figure

    def inline(self, name: str) -> Markup:
        """Return the figure as an SVG element for HTML; every id inside begins with `name`."""
        # Drop the style, which would apply to the whole page. Only tags are changed, since a class
        # may be called "#000001".
        content = self._saved(PAGE, format="svg").decode()
        svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", content, flags=re.S)
        svg = re.sub(r"<[^>]+>", lambda tag: _adapt_tag(tag[0], name), svg[svg.index("<svg") :])
        box = re.search(r'viewBox="[^"]+"', svg)
        assert box is not None
        head = f'<svg {box[0]} role="img" aria-label="{escape(self.label)}">'
        return Markup(head + svg.partition(">")[2])

    def png(self, dpi: int = 110, **metadata: str) -> bytes:
        """Return the figure as a PNG file."""
        return self._saved(PAPER, format="png", dpi=dpi, metadata=metadata)

    def _saved(self, colours: Palette, **options: Any) -> bytes:
        import matplotlib

        out = BytesIO()
        with matplotlib.rc_context(_style(colours)), warnings.catch_warnings():
            # In an SVG, text stays text, which the reader's fonts draw.
            warnings.filterwarnings("ignore", "Glyph .* missing")
            self.figure(colours).savefig(out, **options)
        return out.getvalue()

    def write(self, path: Path) -> None:
        """Write the figure in the format of the file's suffix; UserError if it cannot be written.

        An SVG has a second set of colours for dark mode.
        """
        kind = path.suffix.lower().removeprefix(".")
        if kind != "svg":
            content = self._saved(PAPER, format=kind, dpi=160)
        else:
            light, dark = (asdict(palette).values() for palette in (PAPER, DARK))
            rules = "".join(
                f'[style*="{what}: {before}"] {{{what}: {after} !important}}'
                for before, after in [*zip(light, dark, strict=True), ("#ffffff", "none")]
                for what in ("fill", "stroke")
            )
            rules = f"@media (prefers-color-scheme: dark) {{{rules}}}</style>"
            content = self._saved(PAPER, format=kind, metadata={"Date": None})
            content = content.replace(b"</style>", rules.encode(), 1)
        with writing(f"The figure {path}"):
            path.write_bytes(content)


def _adapt_tag(tag: str, name: str) -> str:
    tag = re.sub(r' id="[\w.]+_\d+"', "", tag)  # ids of groups, which are not referenced
    tag = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", tag).replace("xlink:href", "href")
    for variable, colour in asdict(PAGE).items():
        tag = tag.replace(colour, f"var(--{variable})")
    # Keep the size of fonts; the page decides the family.
    return re.sub(r'font: (?:\w+ )*?([\d.]+px)[^;"]*', r"font-size: \1", tag)


def _style(colours: Palette) -> dict[Any, Any]:
    ground = "none" if colours == PAGE else "white"
    return {
        "axes.edgecolor": colours.line,
        "axes.facecolor": ground,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.labelcolor": colours.muted,
        "axes.labelsize": 10.5,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "figure.facecolor": ground,
        "font.size": 10.5,
        "grid.color": colours.line,
        "grid.linewidth": 0.6,
        "legend.fontsize": 10,
        "legend.frameon": False,
        "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
        "svg.hashsalt": "bench",  # ids depend on the figure alone
        "text.color": colours.ink,
        "text.parse_math": False,  # a class may be called "$100$"
        "xtick.color": colours.line,
        "xtick.labelcolor": colours.muted,
        "ytick.color": colours.line,
        "ytick.labelcolor": colours.muted,
    }
