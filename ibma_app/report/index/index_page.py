"""The index of the report: every page of the folder, with what was found, warnings and small pictures."""

import html
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ibma_app import __version__
from ibma_app.report.html import render, sort_key
from ibma_app.report.index.cards import META, Card, outliers_first, read_card
from ibma_app.report.pages import Save, count_words, entry

INDEX = "report.html"
HEAD = 200_000  # characters of a page in which its card stands
MOST_THUMBNAILS = 500  # participants with a picture: about 3 kB each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListedPage:
    """A page of the folder, as the index lists it."""

    file: str
    title: str
    description: str
    card: Card = field(default_factory=Card)
    remark: str = ""  # how far a participant's map agrees with the others
    odd: bool = False


def write_index(output_dir: Path, save: Save, version: str = __version__) -> Path:
    """Write ``report.html``, which lists every page that lies in ``output_dir``.

    Jobs that run in parallel may each write it: it lists the pages on disk, so
    that the last job lists all.
    """
    groups, participants = _list_pages(output_dir, "group_*.html"), _list_pages(output_dir, "sub-*.html")
    runs = _list_pages(output_dir, "run_*.html")
    others = (
        ("README.md", "what lies in this dataset, and the methods"),
        ("CITATION.md", "what to cite"),
        ("dataset_description.json", "BIDS description of this dataset"),
        ("figures/", "the pictures of these pages as SVG files"),
        ("logs/", "options as resolved, log and versions of each run"),
    )
    counts = [count_words(len(groups), "group analysis", "group analyses")]
    counts.append(count_words(len(participants), "participant"))
    if runs:
        counts.append(count_words(len(runs), "run"))
    ordered, words = _order_participants(participants, groups)
    path = output_dir / INDEX
    content = render(
        "index.html.j2",
        kicker="ibma-app",
        title="Report",
        description=f"{', '.join(counts[:-1])} and {counts[-1]}.",
        contents=[
            entry("group", "Group analyses"),
            entry("participants", "Participants"),
            *([entry("runs", "Runs")] if runs else []),
            entry("files", "Other files"),
        ],
        version=version,
        sections=[
            _section("group", "Group analyses", groups, "None yet: run the group level."),
            _section("participants", "Participants", ordered, "None in this folder.", words),
            *([_section("runs", "Runs", runs, "")] if runs else []),
        ],
        texts=others,
    )
    save(path, content)
    return path


def _section(anchor: str, title: str, pages: Sequence[ListedPage], empty: str, words: str = "") -> dict[str, Any]:
    return {"anchor": anchor, "title": title, "pages": pages, "empty": empty, "words": words}


def _order_participants(pages: Sequence[ListedPage], groups: Sequence[ListedPage]) -> tuple[list[ListedPage], str]:
    """Put the participants first whose maps agree least with the others', and say so."""
    by_label = {page.file.removeprefix("sub-").removesuffix(".html"): page for page in pages}
    ordered = []
    known = False
    for number, (label, agreement, odd) in enumerate(outliers_first(by_label, [page.card for page in groups])):
        page = by_label[label]
        known = known or agreement is not None
        remark = "" if agreement is None else f"r = {agreement:.2f}".replace("-", "−")
        if number >= MOST_THUMBNAILS:
            page = replace(page, card=replace(page.card, thumbnail=()))
        ordered.append(replace(page, remark=remark, odd=odd))
    words = (
        "Those first whose maps agree least with the others' (r: correlation with the mean of the others, the lowest "
        "of all group analyses). "
        if known
        else ""
    )
    pictured = any(page.card.thumbnail for page in ordered)
    shown = "Pictures: z of the first contrast beyond |z| = 3.1, all on one scale." if pictured else ""
    return ordered, (words + shown).strip()


def _list_pages(output_dir: Path, pattern: str) -> list[ListedPage]:
    """List pages with title, description and card, sorted as readers expect."""
    pages = []
    for path in sorted(output_dir.glob(pattern), key=lambda one: sort_key(one.name)):
        try:
            with path.open(encoding="utf-8", errors="replace") as stream:
                head = stream.read(HEAD).partition("</head>")[0]
        except OSError as error:  # listed all the same: the page exists
            logger.warning("Cannot read %s for the index: %s", path, error)
            head = ""
        title = re.search(r"<title>(.*?)(?: · ibma-app)?</title>", head, re.DOTALL)
        pages.append(
            ListedPage(
                file=path.name,
                title=html.unescape(title.group(1)) if title else path.stem,
                description=_meta(head, "description"),
                card=read_card(_meta(head, META)),
            )
        )
    return pages


def _meta(head: str, name: str) -> str:
    found = re.search(rf'<meta name="{name}" content="([^"]*)">', head)
    return html.unescape(found.group(1)) if found else ""
