"""The maps of one estimator, read back from the files that were written.

Every number and picture of a page is made of these, so that the page cannot
differ from the files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.anatomy.elements import Shape
from ibma_app.core.design import Design, Test
from ibma_app.core.errors import IbmaError, InputError, ReadWriteError
from ibma_app.core.from_files import read_json
from ibma_app.core.results import EstimatorResult, Finding
from ibma_app.core.statmap import ENDINGS
from ibma_app.images.elements.formats import files_of, read_map

Floats = NDArray[np.float64]

TESTLESS = (
    "n", "dof", "tau2", "q", "i2", "h2", "sigma2", "icc", "omega2", "i2between", "i2within", "pilower", "piupper",
    "design", "skewness",
)  # fmt: skip
"""Kinds that belong to no test: their file names have no ``test-``."""


OF_TAU2 = ("tau2", "tau2lower", "tau2upper")


class ResultMaps:
    """The maps that one estimator wrote for one test, read when they are needed and cached.

    Parameters
    ----------
    result : EstimatorResult
    grid : Shape
        What the analysis lies on; every file must lie on it.
    design : Design
    test : Test
    """

    def __init__(self, result: EstimatorResult, grid: Shape, design: Design, test: Test) -> None:
        self.result = result
        self.grid = grid
        self.test = test
        # names of files may lack test- where there is one test (an intercept alone)
        self._names = (test.name, "") if len(design.tests) == 1 else (test.name,)
        self._volumes: dict[Path, Floats] = {}

    def path(self, kind: str, inference: str = "") -> Path | None:
        """The file of a kind, or None when there is none."""
        names = ("", *self._names) if kind in TESTLESS or kind.startswith("tau2") else self._names
        for name in names:
            found = self.result.path(kind, test=name, inference=inference)
            if found is not None:
                return found
        return None

    def volume(self, kind: str, inference: str = "") -> Floats | None:
        """Values on the whole grid (X, Y, Z), or of all elements (N,), or None when there is no such map.

        Raises
        ------
        InputError
            When the file is gone.
        ReadWriteError
            When it cannot be read or lies on another grid.
        """
        path = self.path(kind, inference)
        if path is None:
            return None
        if path not in self._volumes:
            self._volumes[path] = read_volume(path, self.grid)
        return self._volumes[path]

    def values(self, kind: str, inference: str = "") -> Floats | None:
        """Values inside the mask (V,), or None when there is no such map."""
        volume = self.volume(kind, inference)
        return None if volume is None else volume[self.grid.mask]

    def sidecar(self, kind: str) -> Mapping[str, Any]:
        """The file's sidecar; {} when there is no such map."""
        path = self.path(kind)
        return {} if path is None else read_sidecar(path)

    def tau2_of_groups(self) -> dict[str, Floats]:
        """The tau2 of each group on the whole grid, (X, Y, Z), where groups have their own; {} elsewhere."""
        kinds = [file.kind for file in self.result.files if file.kind.startswith("tau2") and file.kind not in OF_TAU2]
        found = ((self.sidecar(kind).get("Group", kind), self.volume(kind)) for kind in kinds)
        return {str(group): volume for group, volume in found if volume is not None}

    def has(self, name: str) -> bool:
        """Return whether a name, as files have it, is this test's."""
        return name in self._names

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The inferences made on this test."""
        return tuple(finding for finding in self.result.findings if finding.test in self._names)


def read_volume(path: Path, grid: Shape) -> Floats:
    """Read a map that must lie on the grid, of its shape; 0 where the file has no value."""
    try:
        volume = read_map(files_of(path, grid)).data.astype(np.float64)
    except InputError as error:
        raise InputError(f"The report needs {path}, which is gone. Run the analysis again.") from error
    except IbmaError as error:
        raise ReadWriteError(f"The report cannot read {path}: {error.message}") from error
    if volume.shape != grid.shape:
        raise ReadWriteError(f"{path} has shape {volume.shape}, the analysis has {grid.shape}.")
    return np.where(np.isnan(volume), 0.0, volume) if grid.box is None else volume


def read_sidecar(path: Path) -> Mapping[str, Any]:
    """Read the JSON beside a map; {} when there is none or it is no JSON object."""
    name = path.name.removesuffix(next((ending for ending in ENDINGS if path.name.endswith(ending)), ""))
    try:
        content = read_json(path.parent / f"{name}.json")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
