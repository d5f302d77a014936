"""The pictures of a page as files of their own: what the page shows, on white, for slides and papers.

Each is taken from the finished page, so that file and page cannot differ.
Sections say what their pictures' names begin with (``data-figures``), a
picture how its own ends (``data-figure``, else made of its description).
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path

from ibma_app.report.html import TEMPLATES

FOLDER = "figures"

_TOKEN = re.compile(
    r"(?P<open><section\b[^>]*>)|(?P<close></section>)|<figure(?: class=\"(?P<kind>[^\"]*)\")?>"
    r"|<svg (?P<attributes>class=\"picture[^>]*)>(?P<content>.*?)</svg>",
    re.S,
)
_USE = re.compile(r'<use href="#([^"]+)"/>')
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_PAINT = re.compile(r"fill|stroke|font|text-anchor|image-rendering|opacity")
_SHAPES = {"svg", "g", "text", "path", "rect", "circle", "image", "line", "polyline", "polygon"}
_MARGIN = 8
_ENDINGS = (
    ("Forest plot", "peak-{n}_forest"),
    ("Funnel plot", "peak-{n}_funnel"),
    ("Observed against expected p", "qq"),
    ("Null distribution of (.+)", "corr-{0}_null"),
    ("Correlations of .* maps", "correlations"),
    ("Scale of each map", "scales"),
)
"""What a description opens with -> how the file's name ends; others are named by their first words."""


def save_figures(page: str, stem: str, folder: Path, save: Callable[[Path, str], object]) -> list[Path]:
    """Write every picture of a page as a standalone SVG file.

    Parameters
    ----------
    page : str
        The page's HTML.
    stem : str
        What names begin with where no section says.
    folder : Path
        OUTPUT_DIR; files lie in its ``figures``.
    save : callable
        ``save(path, text)`` writes a text file atomically.

    Returns
    -------
    list of Path
        The files, named like maps: ``<entities>_stat-z_glass.svg``.
    """
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.S)
    paths, taken, stems, kind = [], set[str](), [stem], ""
    for token in _TOKEN.finditer(page):
        if token["open"]:
            stems.append(_attribute(token["open"], "data-figures") or stems[-1])
        elif token["close"]:
            stems.pop()
        elif token["content"] is None:
            kind = token["kind"] or ""
        else:
            name = _name(token["attributes"], stems[-1], taken)
            path = folder / FOLDER / f"{name}.svg"
            save(path, stand_alone(token["attributes"], token["content"], kind, page))
            paths.append(path)
    return paths


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf'{name}="([^"]*)"', tag)
    return found[1] if found else ""


def _name(attributes: str, stem: str, taken: set[str]) -> str:
    """Put a name together that no other picture of the page has, of letters that file systems agree on."""
    ending = _attribute(attributes, "data-figure") or _ending(_attribute(attributes, "aria-label"))
    ending = ending if "{n}" in ending else f"{ending}{{n}}"
    for number in range(1, len(taken) + 2):
        counted = ending.replace("{n}", str(number) if number > 1 or "-{n}" in ending else "")
        name = re.sub(r"[^A-Za-z0-9_+-]", "", f"{stem}_{counted}".strip("_"))
        if name not in taken:
            break
    taken.add(name)
    return name


def _ending(description: str) -> str:
    for pattern, ending in _ENDINGS:
        found = re.match(pattern, description)
        if found:
            return ending.replace("{0}", _camel_case(found[1]) if found.groups() else "")
    return _camel_case(description)


def _camel_case(text: str) -> str:
    first, *others = re.findall(r"[A-Za-z0-9]+", re.sub(r"&[#\w]+;", " ", text))[:6] or ["figure"]
    return first[:1].lower() + first[1:] + "".join(word[:1].upper() + word[1:] for word in others)


def stand_alone(attributes: str, content: str, kind: str, page: str) -> str:
    """Make a whole SVG document of a picture of a page: background, style, and the pictures that it refers to."""
    left, top, width, height = (float(number) for number in _attribute(attributes, "viewBox").split())
    content = _USE.sub(lambda use: _definition(use[1], page), content)
    own = _attribute(attributes, "class")
    used = {name for names in re.findall(r'class="([^"]*)"', content) for name in names.split()}
    style = _style(frozenset({*used, *own.split(), *kind.split()}))
    wide, high = width + 2 * _MARGIN, height + 2 * _MARGIN
    box = f"{left - _MARGIN:g} {top - _MARGIN:g} {wide:g} {high:g}"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{kind}" role="img" width="{wide:g}" height="{high:g}" '
        f'viewBox="{box}" aria-label="{_attribute(attributes, "aria-label")}">\n<style>\n{style}\n</style>\n'
        f'<rect x="{left - _MARGIN:g}" y="{top - _MARGIN:g}" width="{wide:g}" height="{high:g}" fill="#ffffff"/>\n'
        f'<g class="{own}">{content}</g>\n</svg>\n'
    )


def _definition(key: str, page: str) -> str:
    """Give the picture that a page keeps once for all that lie over it."""
    found = re.search(rf'<image id="{re.escape(key)}"([^>]*)/>', page)
    return f"<image{found[1]}/>" if found else ""


@functools.cache
def _sheet() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Read the stylesheet's colours in the light, and its rules that are for any medium."""
    text = re.sub(r"/\*.*?\*/", "", (TEMPLATES / "style.css").read_text(encoding="utf-8"), flags=re.S)
    text = re.sub(r"@[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", text)
    rules = [(selectors.strip(), body) for selectors, body in _RULE.findall(text)]
    colours = {name: value.strip() for _, body in rules for name, value in re.findall(r"(--[\w-]+):([^;]+)", body)}
    return colours, rules


@functools.cache
def _style(classes: frozenset[str]) -> str:
    """Give the rules that paint shapes of these classes, their variables replaced: not every program knows them."""
    colours, rules = _sheet()
    kept = []
    for selectors, body in rules:
        chosen = ", ".join(one.strip() for one in selectors.split(",") if _concerns(one, classes))
        painted = [line.strip() for line in body.split(";") if _PAINT.match(line.strip())]
        if chosen and painted:
            text = re.sub(r"var\((--[\w-]+)\)", lambda name: colours.get(name[1], "#000000"), "; ".join(painted))
            kept.append(f"{chosen} {{ {text} }}")
    return "\n".join(kept)


def _concerns(selector: str, classes: frozenset[str]) -> bool:
    """Tell whether a selector names nothing but shapes and these classes."""
    parts = re.findall(r"[.:#\[]?[\w-]+", selector)
    return all(part[1:] in classes if part.startswith(".") else part in _SHAPES for part in parts) and bool(parts)
