"""Tables of the ENIGMA toolbox: study and contrast are in the name of the file.

``scz_case-controls_CortThick.csv`` has the columns ``CorticalThickness`` (whose cells name the comparison),
``Structure``, ``d_icv``, ``se_icv``, ``low_ci_icv``, ``up_ci_icv``, ``n_controls``, ``n_patients``, ``pobs`` and
``fdr_p``. The cells of the first column are not what names the study: some are of another table.

References
----------
Larivière S, Paquola C, Park BY, et al. (2021). The ENIGMA Toolbox: multiscale neural contextualization of
multisite neuroimaging datasets. Nature Methods 18, 698-700.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ibma_app.importers.table.lines import Cells

COLUMNS = {"structure", "d_icv", "se_icv"}
_NAME = re.compile(r"(?P<who>[^_]+)_(?P<cases>[^_]*)case-controls_(?P<what>[^_]+)(_(?P<part>.+))?")
_ASD = re.compile(r"(?P<who>[^_]+_(mega|meta)-analysis)_(?P<rest>case-controls_.+)")


@dataclass(frozen=True)
class EnigmaName:
    """What a table's name says."""

    study: str  # who the patients are: "scz", "mddadultlate"
    contrast: str  # what is compared: "CortThick", "SubVol"
    column: str  # name of the first column
    disorder: str

    def notes(self, lines: Sequence[tuple[int, Cells]]) -> tuple[str, ...]:
        """Tell where the first column names another study than the file."""
        said = next((cells[self.column] for _, cells in lines if self.column in cells), "")
        if not said or _plain(said).startswith(_plain(self.disorder).removesuffix("s")):
            return ()
        return (f"its column {self.column} says {said!r}; the study is named by the file: {self.study}.",)


def read_name(table: Path, header: Sequence[str]) -> EnigmaName | None:
    """Return what the name of a table says; None where the columns are not ENIGMA's, or the name is not.

    Parameters
    ----------
    table : Path
    header : sequence of str
        Names of the columns, lowercase.
    """
    if not set(header) >= COLUMNS or {"study_id", "contrast"} & set(header):
        return None
    analysis = _ASD.fullmatch(table.stem)
    who = analysis["who"] if analysis else ""
    found = _NAME.fullmatch(f"x_{analysis['rest']}" if analysis else table.stem)
    if found is None:
        return None
    parts = (who or found["who"], found["cases"], found["part"] or "")
    return EnigmaName("".join(parts), found["what"], header[0], parts[0])


def _plain(text: str) -> str:
    return "".join(sign for sign in text.casefold() if sign.isalnum())
