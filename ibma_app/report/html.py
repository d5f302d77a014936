"""The Jinja environment of the pages, and how numbers and pictures are written.

Pages are one file each: the stylesheet is inlined and every picture is a
``data:`` URI, so that nothing is loaded from elsewhere. Autoescape is on for
every template; the only texts that are trusted are our own stylesheet and script.
"""

import base64
import functools
import hashlib
import math
import os
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"

LIGHT = {
    "ink": "#1c2127",
    "soft": "#59626d",
    "rule": "#dfe3e8",
    "wash": "#f5f7f9",
    "accent": "#2f6f9f",
    "odd": "#b3372c",  # what stands out, or was observed
    "halo": "#ffffff",  # around numbers on maps
}
"""Colours of pictures on a light page, and in files."""


def format_number(value: Any) -> str:
    """Write a number for a reader: whole numbers with thousands marks, others with 4 digits.

    ``None`` and non-finite numbers become a dash, anything else its ``str``.
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    if isinstance(value, Integral):
        return f"{int(value):,}"
    number = float(value)
    if not math.isfinite(number):
        return "–"
    if number == round(number) and abs(number) < 1e6:
        return f"{number:,.0f}".replace("-0", "0") if number == 0 else f"{number:,.0f}"
    return f"{number:.4g}"


def format_fact(value: Any) -> str:
    """Write any fact of a method (number, text, list, mapping) on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_fact(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(format_fact(part) for part in value)
    return format_number(value)


def split_words(name: str) -> str:
    """Write a key for a reader: ``NumberOfTests`` and ``number_of_tests`` as ``number of tests``."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name.replace("_", " ")).split()
    return " ".join(part if part.isupper() and len(part) > 1 else part.lower() for part in parts)


def sort_key(text: str) -> list[tuple[int, int, str]]:
    """Order labels as a reader expects: ``sub-2`` before ``sub-10``."""
    parts = re.split(r"(\d+)", text)
    # isdecimal, because int() refuses other digits such as "²"; the text breaks ties
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts]


def data_uri(content: bytes, mime: str = "image/png") -> str:
    """Return bytes as a ``data:`` URI."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def encode_png(indices: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """Encode a picture (H, W) of palette entries as PNG; the same array gives the same bytes.

    Parameters
    ----------
    indices : (H, W) array of uint8
        Which palette entry each pixel has.
    palette : (N, 4) array of uint8
        RGBA colours, N at most 256.
    """

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = indices.shape
    # the first byte of each PNG line is its filter; 0 (none) is best for palettes
    lines = np.zeros((height, width + 1), dtype=np.uint8)
    lines[:, 1:] = indices
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            chunk(b"PLTE", np.ascontiguousarray(palette[:, :3]).tobytes()),
            chunk(b"tRNS", np.ascontiguousarray(palette[:, 3]).tobytes()),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            chunk(b"IEND", b""),
        )
    )


def content_policy(script: str) -> str:
    """Return the pages' content security policy: they run this script alone, and load nothing.

    Whatever labels of the input contain, a browser runs no other script and
    contacts no address.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@functools.cache
def page_script() -> str:
    """Return the one script of pages: viewers, tables and tabs, in a scope of their own."""
    parts = [
        (TEMPLATES / "scripts" / name).read_text(encoding="utf-8")
        for name in ("viewer.js", "mesh_viewer.js", "page.js")
    ]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


@functools.cache
def environment() -> "Environment":
    """Return the Jinja environment: autoescape everywhere, undefined names are errors."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["number"] = format_number
    env.filters["href"] = lambda path: quote(os.fsencode(path))
    variables = {name: f"var(--{name})" for name in LIGHT}
    stylesheet = env.get_template("styles/style.css.j2").render(light=LIGHT, colour=variables) + "\n"
    script = page_script()
    env.globals["stylesheet"] = Markup(stylesheet)  # trusted: our own files
    env.globals["script"] = Markup(script)
    env.globals["policy"] = content_policy(script)
    return env


def render(template: str, **context: Any) -> str:
    """Fill a template of ``report/templates``."""
    return environment().get_template(template).render(**context)


def reword(page: str, speak: Callable[[str], str]) -> str:
    """Return a page with every text that a reader sees in other words; tags, styles and scripts stay."""
    parts = _UNSEEN.split(page)
    parts[::2] = [speak(text) for text in parts[::2]]
    return "".join(parts)


_UNSEEN = re.compile(r"(<script\b.*?</script>|<style\b.*?</style>|<[^>]*>)", re.DOTALL)
