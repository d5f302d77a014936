"""Labels of file names: what BIDS allows, and how the names of contrasts, studies and tests become labels.

All labels that are made from names are made here.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import TypeVar

LONGEST, LONGEST_CONTRAST = 60, 80
"""Characters of the labels made here: all that a file's name holds must fit into 255 bytes."""

Named = TypeVar("Named")

_LABEL = re.compile(r"[a-zA-Z0-9+]+")
_NAMED = re.compile(
    r"(LATIN|GREEK) (?P<case>SMALL|CAPITAL) LETTER ((DOTLESS|FINAL|LONG) )?(?P<letter>[A-Z]+)( WITH [A-Z -]+)?"
)
_SPELLED = {"ß": "ss", "ẞ": "SS"}
_CODE = 8


def is_label(text: str) -> bool:
    """Return whether a text is valid as a label in a file name: letters, digits and ``+``."""
    return _LABEL.fullmatch(text) is not None


def make_label(name: str) -> str:
    """Make a label from the name of a column, a test or a study: ``C(group)[T.b]`` -> ``CgroupTb``.

    Letters and digits are kept, without accents; valid labels stay as they
    are. Letters of other scripts are replaced by a code of the whole name, so
    that different names have different labels (`_spell`). Labels beyond 60
    characters are shortened (`shorten`). Empty where nothing is left.
    """
    return shorten(_spell(name), LONGEST)


def contrast_label(name: str) -> str:
    """Make a label from the name of a contrast as nilearn does: ``Incongr>Cong`` -> ``incongrGtCong``.

    The rule is that of nilearn's ``save_glm_to_bids`` (0.9.2 and later; its
    first word is lowercase), but names that are valid labels stay as they are
    (``IniFF``), and letters beyond ASCII are treated as by `make_label`, since
    BIDS labels have none. Labels beyond 80 characters are shortened.
    """
    if name.isascii() and name.isalnum():
        return shorten(name, LONGEST_CONTRAST)
    spelled = unicodedata.normalize("NFKC", name)
    for sign, word in (
        (r"[-\u2010-\u2015\u2212]", " Minus "),
        (r"\+", " Plus "),
        (">", " Gt "),
        ("<", " Lt "),
        ("_", " "),
    ):
        spelled = re.sub(sign, word, spelled)
    first, *rest = spelled.split(" ")
    return shorten(_spell(first.lower() + "".join(word.title() for word in rest)), LONGEST_CONTRAST)


def shorten(label: str, longest: int) -> str:
    """Cut a label that is too long, and end it with a code of the whole: still one label for one name."""
    return label if len(label) <= longest else label[: longest - _CODE] + _code(label)


def find_clash(labelled: Iterable[tuple[str, Named]]) -> tuple[str, Named, Named] | None:
    """Find the first label that two different names have; None where each label has one name.

    Labels that differ in case alone are one: many file systems take their files for one.
    """
    taken: dict[str, tuple[str, Named]] = {}
    for label, name in labelled:
        first, other = taken.setdefault(label.casefold(), (label, name))
        if other != name:
            return first, other, name
    return None


def _spell(name: str) -> str:
    """Spell a name in ASCII letters and digits, with a code at its end where letters of other scripts are left out.

    Accents are dropped (``é``, ``²``, ``ø``), Greek letters spelled out (``β`` -> ``beta``).
    """
    plain = unicodedata.normalize("NFKC", name)
    spelled = [_spell_letter(letter) for letter in plain]
    kept = "".join(text for text in spelled if text)
    return kept if None not in spelled else kept + _code(" ".join(plain.split()))


def _spell_letter(letter: str) -> str | None:
    """Spell one letter in ASCII; "" for what is no letter or digit, None for a letter of another script."""
    base = unicodedata.normalize("NFKD", letter)[0]
    if base.isascii():
        return "".join(c for c in unicodedata.normalize("NFKD", letter) if c.isascii() and c.isalnum())
    if not letter.isalnum():
        return None if unicodedata.category(letter) in ("Mc", "Lm") else ""
    if letter in _SPELLED:
        return _SPELLED[letter]
    found = _NAMED.fullmatch(unicodedata.name(base, ""))
    if found is None:
        return None
    return found["letter"].lower() if found["case"] == "SMALL" else found["letter"].capitalize()


def _code(text: str) -> str:
    """Return a code of a text, the same everywhere."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_CODE]


def group_label(column: str, group: str) -> str:
    """Make a label from a covariate and one of its groups: ``site``, ``Gent 2`` -> ``SiteGent2``."""
    parts = (make_label(part) for part in (column, group))
    return "".join(part[:1].upper() + part[1:] for part in parts)


def camel_case(name: str) -> str:
    """Make a label from the name of a method: ``stouffer-rfx`` -> ``stoufferRfx``."""
    first, *rest = [piece for piece in re.split(r"[^a-zA-Z0-9]+", name) if piece]
    return first + "".join(piece[0].upper() + piece[1:] for piece in rest)
