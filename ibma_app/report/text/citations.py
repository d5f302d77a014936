"""The methods text ready to paste: as Markdown whose citations are keys, and the references as BibTeX."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ibma_app.core.methods import Citation
from ibma_app.report.html import data_uri
from ibma_app.report.text.methods_section import MethodsText, escape_markdown

_ARTICLE = re.compile(r"(?P<journal>.*\D) (?P<volume>\d+)(?:\((?P<number>[^)]+)\))?, (?P<pages>\S+)")
_BOOK = re.compile(r"(?:(?P<edition>\S+) edition, )?(?P<publisher>[^,\d]+), (?P<address>[^,\d]+)")
_INITIALS = re.compile(r"(?:[^\W\d_a-z]+-?)+")
_SPECIAL = re.compile(r"([&%$#_{}])")


@dataclass(frozen=True)
class PasteText:
    """A text that a page offers to copy or to keep as a file."""

    title: str
    file: str
    uri: str  # the file itself
    content: str


def paste_texts(text: MethodsText, stem: str) -> tuple[PasteText, ...]:
    """Offer the methods as Markdown and their references as BibTeX.

    Parameters
    ----------
    text : MethodsText
    stem : str
        What the files are called, without ending.
    """
    return (
        _offer("Methods as Markdown", f"{stem}_methods.md", "text/markdown", methods_with_keys(text)),
        _offer(
            "References as BibTeX",
            f"{stem}_references.bib",
            "application/x-bibtex",
            references(text),
        ),
    )


def _offer(title: str, file: str, mime: str, content: str) -> PasteText:
    return PasteText(title, file, data_uri(content.encode("utf-8"), f"{mime};charset=utf-8"), content)


def merge_texts(texts: Sequence[MethodsText]) -> MethodsText:
    """Put the methods of several analyses together: each paragraph and each reference once."""
    written = dict.fromkeys(one for text in texts for one in zip(text.paragraphs, text.cited, strict=True))
    return MethodsText(tuple(words for words, _ in written), tuple(cited for _, cited in written))


def methods_with_keys(text: MethodsText) -> str:
    """Write the paragraphs as Markdown, their citations as pandoc takes them: ``[@knapp2003]``.

    The keys are those of `bibtex`.
    """
    written = []
    for words, cited in zip(text.paragraphs, text.cited, strict=True):
        keys = "; ".join(f"@{citation.key}" for citation in cited)
        written.append(escape_markdown(words) + (f" [{keys}]" if keys else ""))
    return "\n\n".join(written) + "\n"


def bibtex(citations: Iterable[Citation]) -> str:
    """Write citations as BibTeX entries, UTF-8, in the order given."""
    return "\n".join(_entry(citation) for citation in citations)


def references(text: MethodsText) -> str:
    """Write what the methods cite, and the studies that were combined, as BibTeX; their authors as their source has."""
    entries = [bibtex(text.citations)]
    for label, publication in text.studies:
        fields = {
            "author": publication.authors and f"{{{_escape(publication.authors)}}}",
            "title": f"{{{_escape(publication.title or f'Study {label}')}}}",
            "doi": publication.doi,
        }
        lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
        entries.append("\n".join([f"@misc{{study-{label},", *lines, "}", ""]))
    return "\n".join(filter(None, entries))


def _entry(citation: Citation) -> str:
    """Write one entry: an article or a book where the source says so, else ``@misc``."""
    article, book = _ARTICLE.fullmatch(citation.source), _BOOK.fullmatch(citation.source)
    kind, source = "misc", {"howpublished": citation.source}
    if article:
        kind, source = "article", article.groupdict("")
        source["pages"] = source["pages"].replace("-", "--")
    elif book and not citation.doi:
        kind, source = "book", book.groupdict("")
    fields = {
        "author": " and ".join(_author(name) for name in citation.authors.rstrip(".").split(", ")),
        # the inner braces keep capitals from being lowered
        "title": f"{{{_escape(citation.title)}}}",
        **{name: _escape(value) for name, value in source.items()},
        "year": str(citation.year),
        "doi": citation.doi,  # verbatim: its letters are an address
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{citation.key},", *lines, "}", ""])


def _author(name: str) -> str:
    """Turn ``Tippett LHC`` into ``Tippett, L. H. C.``, ``et al`` into ``others``."""
    if name == "et al":
        return "others"
    family, _, initials = name.rpartition(" ")
    if not family or not _INITIALS.fullmatch(initials):
        return f"{{{_escape(name)}}}"  # a body, not a person
    given = " ".join("-".join(f"{letter}." for letter in part.split("-")) for part in _split_initials(initials))
    return f"{_escape(family)}, {given}"


def _split_initials(initials: str) -> list[str]:
    """Take initials apart; hyphenated ones stay together: ``TJP`` is T, J, P; ``J-B`` is J-B."""
    return re.findall(r"\w(?:-\w)*", initials)


def _escape(text: str) -> str:
    """Keep LaTeX from reading signs as commands."""
    return _SPECIAL.sub(r"\\\1", text)
