"""From a matplotlib figure to an SVG that lives inside a page and takes the page's colours."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Palette:
    """The colours of a figure."""

    ink: str
    muted: str
    line: str
    right: str
    wrong: str


# In a page each colour becomes a variable of the style sheet, so that dark mode reaches into the
# figures; to be told apart they differ in their last bits alone.
PAGE = Palette("#000001", "#000002", "#000003", "#000004", "#000005")
# On paper and in a notebook: the style sheet's colours on white.
PAPER = Palette("#1b1f24", "#57606a", "#d5dae0", "#1f5fbf", "#ad3c0e")
# On a dark page.
DARK = Palette("#e9ecf0", "#a7b0ba", "#39414a", "#82b1ff", "#ff9d6e")
VARIABLES = {colour: f"var(--{name})" for name, colour in asdict(PAGE).items()}

Plot = Callable[["Figure", Palette], None]  # draws on a figure, in these colours


def style(colours: Palette) -> dict[Any, Any]:
    """Return matplotlib's settings for figures in these colours."""
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
        "text.color": colours.ink,
        "text.parse_math": False,  # a class may be called "$100$"
        "xtick.color": colours.line,
        "xtick.labelcolor": colours.muted,
        "ytick.color": colours.line,
        "ytick.labelcolor": colours.muted,
    }


SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"


def on_paper(plot: Plot, size: tuple[float, float], place: bool = True) -> Figure:
    """Return a figure by itself, for a notebook or a file; see `draw`."""
    import matplotlib

    with matplotlib.rc_context(style(PAPER)):
        return _figure(plot, size, PAPER, place)


def draw(
    plot: Plot,
    size: tuple[float, float],
    name: str,
    label: str,
    place: bool = True,
) -> Markup:
    """Return a figure as an inline SVG element.

    Args:
        plot: draws on the figure.
        size: inches; 4.6 wide stays readable on a phone.
        name: unique on the page; every id inside begins with it.
        label: what a screen reader says of the figure.
        place: whether matplotlib places the axes, which takes as long as drawing; if not, `plot`
            says where they are.
    """
    import matplotlib

    with matplotlib.rc_context(style(PAGE)), warnings.catch_warnings():
        # Text stays text: the reader's fonts draw it, and need not be ours.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        out = BytesIO()
        _figure(plot, size, PAGE, place).savefig(out, format="svg")
    return inline(out.getvalue(), name, label)


def for_any_page(figure: Figure) -> bytes:
    """Return a figure that `on_paper` made as an SVG file, whose colours suit a dark page too.

    A page that shows it as a picture is dark to it where the page, or the system, is.
    """
    import matplotlib

    out = BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bench"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    light, dark = (asdict(palette).values() for palette in (PAPER, DARK))
    rules = "".join(
        f'[style*="{what}: {before}"] {{{what}: {after} !important}}'
        for before, after in [*zip(light, dark, strict=True), ("#ffffff", "none")]
        for what in ("fill", "stroke")
    )
    return out.getvalue().replace(
        b"</style>", f"@media (prefers-color-scheme: dark) {{{rules}}}</style>".encode(), 1
    )


def _figure(plot: Plot, size: tuple[float, float], colours: Palette, place: bool) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained" if place else None)
    plot(figure, colours)
    return figure


def inline(svg: bytes, name: str, label: str) -> Markup:
    """Return matplotlib's SVG as an element for HTML: its own ids, the page's colours, a label."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):  # the style would reach the whole page
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    used = {name for element in root.iter() for name in _references(element)}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                del element.attrib[key]
                if value in used:
                    element.set("id", f"{name}-{value}")
            else:
                element.set(key, _themed(_prefixed(value, name), key))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", label)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _references(element: ElementTree.Element) -> list[str]:
    text = " ".join(element.attrib.values())
    return re.findall(r"url\(#([^)]+)\)", text) + re.findall(r"(?:^|\s)#([\w-]+)(?=$|\s)", text)


def _prefixed(value: str, name: str) -> str:
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    return f"#{name}-{value[1:]}" if value.startswith("#") and value not in VARIABLES else value


def _themed(value: str, key: str) -> str:
    if key != "style":
        return VARIABLES.get(value, value)
    for colour, variable in VARIABLES.items():
        value = value.replace(colour, variable)
    # Only the size of a font is the figure's own business.
    return re.sub(r"font: (?:\w+ )*?([\d.]+px)[^;]*", r"font-size: \1", value)
