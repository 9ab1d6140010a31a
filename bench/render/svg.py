"""From a matplotlib figure to an SVG that lives inside a page and takes the page's colours."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours to draw with; each becomes a variable of the page's style sheet, so that dark mode
# reaches into the figures. As colours they differ in their last bits alone.
INK = "#000001"
MUTED = "#000002"
LINE = "#000003"
RIGHT = "#000004"
WRONG = "#000005"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    RIGHT: "var(--right)",
    WRONG: "var(--wrong)",
}

STYLE: dict[Any, Any] = {
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 10.5,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$100$"
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
}

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"


def draw(
    plot: Callable[[Figure], None],
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
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Text stays text: the reader's fonts draw it, and need not be ours.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure(figsize=size, layout="constrained" if place else None)
        plot(figure)
        out = BytesIO()
        figure.savefig(out, format="svg")
    return inline(out.getvalue(), name, label)


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
