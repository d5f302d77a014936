"""What a level found, for Python: maps as nibabel images, tables as DataFrames, methods as text."""

import html
import webbrowser
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ibma_app.core.errors import UsageError, tell
from ibma_app.core.results import EstimatorResult, Finding, Results
from ibma_app.core.statmap import GIFTI, TABLES
from ibma_app.dataset.result_tables import read_result_table, stack_tables
from ibma_app.images.write import load_nibabel
from ibma_app.workflows.write.equivalence import NAME as EQUIVALENCE

ONLY_TEST = "intercept"  # the test of a design of one mean, whose files do not name it
FRAME = '<iframe srcdoc="{page}" style="width: 100%; height: 800px; border: 0" title="{title}"></iframe>'


@dataclass(frozen=True)
class InferenceResult:
    """One inference on one test."""

    name: str  # on the menu
    title: str
    n_significant: int  # voxels
    files: Mapping[str, Path] = field(repr=False)  # kind -> file
    folder: Any = field(repr=False, default=None)  # keeps a temporary folder alive

    @property
    def log10p(self) -> Any:
        """Corrected -log10 p: nibabel image."""
        return _open(self.files["log10p"])

    @property
    def z(self) -> Any:
        """The z statistic where it is significant, 0 elsewhere: nibabel image."""
        return _open(self.files["z"])

    @property
    def mask(self) -> Any:
        """1 where the test is significant: nibabel image."""
        return _open(self.files["mask"])

    def map(self, kind: str) -> Any:
        """Return the map of a kind, e.g. ``lower``, the simultaneous lower bound of ``max-stat``, as a nibabel image.

        Raises
        ------
        UsageError
            The inference has no such map.
        """
        return _load(self.name, self.files, kind)

    @cached_property
    def clusters(self) -> Any:
        """Clusters and peaks: pandas.DataFrame, one row each, columns as in the ``clusters.tsv`` on disk."""
        return read_result_table(self.files["clusters"])


@dataclass(frozen=True)
class TestResult:
    """One test of one estimator."""

    name: str
    files: Mapping[str, Path] = field(repr=False)  # kind -> file
    inferences: Mapping[str, InferenceResult]
    folder: Any = field(repr=False, default=None)
    absence: Mapping[str, Path] = field(repr=False, default_factory=dict)  # kind -> file, of ``equivalence=``

    @property
    def absent(self) -> Any:
        """1 where the effect is smaller than the bound ``equivalence``: nibabel image.

        Raises
        ------
        UsageError
            No bound was given.
        """
        return _load(f"{self.name} (no bound: equivalence=...)", self.absence, "mask")

    def map(self, kind: str) -> Any:
        """Return the map of a kind, e.g. ``effect``, as a nibabel image.

        Raises
        ------
        UsageError
            The estimator has no such map.
        """
        return _load(self.name, self.files, kind)

    @property
    def effect(self) -> Any:
        """The effect, in the maps' units: nibabel image."""
        return self.map("effect")

    @property
    def variance(self) -> Any:
        """The effect's sampling variance (squared standard error): nibabel image."""
        return self.map("variance")

    @property
    def z(self) -> Any:
        """The z statistic: nibabel image."""
        return self.map("z")

    @cached_property
    def regions(self) -> Any:
        """Regions, one row each, columns as in the ``regions.tsv`` on disk: pandas.DataFrame.

        Raises
        ------
        UsageError
            None were asked for.
        """
        return _table(self.files, "regions")

    @property
    def clusters(self) -> Any:
        """The clusters of the first inference: pandas.DataFrame."""
        return next(iter(self.inferences.values())).clusters


@dataclass(frozen=True)
class EstimatorMaps:
    """One estimator's maps of an analysis."""

    name: str  # on the menu
    tests: Mapping[str, TestResult]
    files: Mapping[str, Path] = field(repr=False)  # of what all tests share: tau2, q, i2, n, ...
    folder: Any = field(repr=False, default=None)

    def map(self, kind: str) -> Any:
        """Return a map that all tests share, e.g. ``tau2``, as a nibabel image.

        Raises
        ------
        UsageError
            The estimator has no such map.
        """
        return _load(self.name, self.files, kind)


@dataclass(frozen=True)
class AnalysisResult:
    """One finished analysis: a contrast of one participant, or of a group."""

    name: str
    estimators: Mapping[str, EstimatorMaps]
    methods: str  # for a paper
    references: tuple[str, ...]
    notes: tuple[str, ...]  # warnings
    record: Results = field(repr=False)  # as the report sees it
    page: Path | None = field(repr=False)  # None: none was made
    folder: Any = field(repr=False, default=None)

    @property
    def tests(self) -> Mapping[str, TestResult]:
        """The tests of the first estimator."""
        return next(iter(self.estimators.values())).tests

    def map(self, kind: str) -> Any:
        """Return a map of the first estimator that all its tests share, e.g. ``tau2``."""
        return next(iter(self.estimators.values())).map(kind)

    @property
    def regions(self) -> Any:
        """Regions by the first estimator, one row for each test and region (``regions=["AAL3"]``): pandas.DataFrame.

        Raises
        ------
        UsageError
            None were asked for.
        """
        return stack_tables({name: test.regions for name, test in self.tests.items()}, "test")

    @cached_property
    def region_values(self) -> Any:
        """The values of each map in each region, one row for each, with covariates: pandas.DataFrame.

        Raises
        ------
        UsageError
            No regions were asked for.
        """
        return _table(next(iter(self.estimators.values())).files, "values")

    def show(self) -> "Page":
        """Return the page of this analysis: a notebook shows it, ``.open()`` gives it to the browser.

        Raises
        ------
        UsageError
            It was run with ``report=False``.
        """
        if self.page is None:
            raise UsageError(f"{self.name} was run without a report: leave report=False out.")
        return Page(self.page, self.name, self.folder)

    def _repr_html_(self) -> str:
        """A table of what was found, for notebooks."""
        rows = [
            (name, test.name, inference.title, str(inference.n_significant))
            for name, maps in self.estimators.items()
            for test in maps.tests.values()
            for inference in test.inferences.values()
        ]
        head = ("Estimator", "Test", "Inference", "Significant voxels")
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        heading = "".join(f"<th>{cell}</th>" for cell in head)
        return f"<p>{html.escape(self.name)}</p><table><tr>{heading}</tr>{body}</table>"


@dataclass(frozen=True)
class Page:
    """A page of the report."""

    path: Path
    title: str
    folder: Any = field(repr=False, default=None)

    def open(self) -> None:
        """Show it in the browser."""
        webbrowser.open(self.path.as_uri())

    def _repr_html_(self) -> str:
        """The page within a notebook."""
        return FRAME.format(
            page=html.escape(self.path.read_text(encoding="utf-8"), quote=True), title=html.escape(self.title)
        )


def view_results(record: Results, methods: tuple[str, tuple[str, ...]], page: Path, folder: Any) -> AnalysisResult:
    """Make of the record of an analysis what Python sees.

    Parameters
    ----------
    record : Results
    methods : (str, tuple of str)
        Text and references.
    page : Path
        Where its page is, if one was made.
    folder : object
        Lives as long as the files do; None where they stay.

    Returns
    -------
    AnalysisResult
    """
    return AnalysisResult(
        name=record.analysis.name,
        estimators={result.estimator.name: _view_estimator(result, record, folder) for result in record.estimators},
        methods=methods[0],
        references=methods[1],
        notes=tuple(dict.fromkeys((*tell(record.notes), *(note for one in record.estimators for note in one.notes)))),
        record=record,
        page=page if page.is_file() else None,
        folder=folder,
    )


def _view_estimator(result: EstimatorResult, record: Results, folder: Any) -> EstimatorMaps:
    """Sort an estimator's files by test and inference."""
    named = {test.name for test in record.design.tests} & {file.test for file in result.files}
    tests = {}
    for name in [test.name for test in record.design.tests] if named else [ONLY_TEST]:
        key = name if named else ""
        found = {finding.inference.name: finding for finding in result.findings if finding.test == key}
        inferences = {one: _view_inference(result, finding, folder) for one, finding in found.items()}
        absence = _files(result, key, EQUIVALENCE)
        tests[name] = TestResult(name, _files(result, key, ""), inferences, folder, absence)
    return EstimatorMaps(result.estimator.name, tests, _files(result, "", ""), folder)


def _view_inference(result: EstimatorResult, finding: Finding, folder: Any) -> InferenceResult:
    inference = finding.inference
    files = _files(result, finding.test, inference.name)
    return InferenceResult(inference.name, inference.title, finding.n_significant, files, folder)


def _open(path: Path) -> Any:
    """Open a map: nibabel's image, in a list those of the hemispheres (left first) in GIFTI, the table of regions."""
    if path.name.endswith(TABLES):
        return read_result_table(path)
    if not path.name.endswith(GIFTI):
        return load_nibabel(path)
    both = dict.fromkeys((path, path.with_name(path.name.replace("hemi-L_", "hemi-R_", 1))))
    return [load_nibabel(one) for one in both if one.is_file()]


def _load(name: str, files: Mapping[str, Path], kind: str) -> Any:
    """Load one of the files of a result."""
    if kind not in files:
        raise UsageError(f"{name} has no map {kind}. There are: {', '.join(files) or 'none'}.")
    return _open(files[kind])


def _table(files: Mapping[str, Path], kind: str) -> Any:
    """Read one of the tables of regions."""
    if kind not in files:
        raise UsageError("No regions were asked for. Give atlases or files: regions=['AAL3'].")
    return read_result_table(files[kind])


def _files(result: EstimatorResult, test: str, inference: str) -> dict[str, Path]:
    """List the files of a test and an inference, by kind."""
    return {file.kind: file.path for file in result.files if (file.test, file.inference) == (test, inference)}
