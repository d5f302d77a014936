"""Labels of file names: what BIDS allows, and how the names of contrasts, studies and tests become labels.

All labels that are made from names are made here.
"""

import re
import unicodedata

_LABEL = re.compile(r"[a-zA-Z0-9+]+")


def is_label(text: str) -> bool:
    """Return whether a text is valid as a label in a file name: letters, digits and ``+``."""
    return _LABEL.fullmatch(text) is not None


def make_label(name: str) -> str:
    """Make a label from the name of a column, a test or a study: ``C(group)[T.b]`` -> ``CgroupTb``.

    Letters and digits are kept, without accents. Empty where nothing is left.
    """
    plain = unicodedata.normalize("NFKD", name)
    return "".join(letter for letter in plain if letter.isascii() and letter.isalnum())


def contrast_label(name: str) -> str:
    """Make a label from the name of a contrast as nilearn does: ``Incongr>Cong`` -> ``incongrGtCong``.

    The rule is that of nilearn's ``save_glm_to_bids`` (0.9.2 and later; its
    first word is lowercase), but letters beyond ASCII lose their accents,
    since BIDS labels have none. Empty where nothing is left.
    """
    spelled = name
    for sign, word in (("-", " Minus "), ("+", " Plus "), (">", " Gt "), ("<", " Lt "), ("_", " ")):
        spelled = spelled.replace(sign, word)
    first, *rest = spelled.split(" ")
    return make_label(first.lower() + "".join(word.title() for word in rest))


def camel_case(name: str) -> str:
    """Make a label from the name of a method: ``stouffer-rfx`` -> ``stoufferRfx``."""
    first, *rest = [piece for piece in re.split(r"[^a-zA-Z0-9]+", name) if piece]
    return first + "".join(piece[0].upper() + piece[1:] for piece in rest)
