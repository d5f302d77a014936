"""``combine_runs`` and ``group``: the two levels, called from Python."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibma_app import __version__
from ibma_app.core.errors import IbmaError, UsageError
from ibma_app.core.results import Results
from ibma_app.report.text.methods_section import methods_text
from ibma_app.workflows.any_level import run_level
from ibma_app.workflows.options.parse import make_options
from ibma_app.workflows.options.table import Options
from ibma_app.workflows.python.found import AnalysisResult, view_results
from ibma_app.workflows.python.lay_out import Maps, lay_out, write_covariates
from ibma_app.workflows.write.saved_results import ENDING, read_record

Analyses = dict[str, AnalysisResult]


def combine_runs(
    dataset: Any = None,
    output_dir: str | Path | None = None,
    *,
    maps: Maps | None = None,
    report: bool = True,
    verbose: bool = False,
    **options: Any,
) -> AnalysisResult | Analyses:
    """Combine runs into subjects by precision-weighted fixed effects: the level ``participant``.

    Parameters
    ----------
    dataset : str, Path or pybids.BIDSLayout, optional
        A BIDS dataset; give this or ``maps``.
    output_dir : str or Path, optional
        Where the files go; None: no file is left.
    maps : mapping of str to sequence of images or paths, optional
        The runs of one subject by kind: ``{"effect": [...], "variance": [...]}``.
    report : bool
        Whether pages are made (``show()`` needs them).
    verbose : bool
        Whether progress is shown; warnings always are.
    **options
        Those of the command line, by their long names with underscores: ``mask="data"``, ``nprocs=2``, and
        ``settings={"estimator": {...}}`` as in the configuration. ``space`` of ``maps`` names their template,
        ``metadata`` is their sidecar.

    Returns
    -------
    AnalysisResult or dict of str to AnalysisResult
        Of ``maps`` the only one; of a dataset by name (``sub-01_contrast-faces``, ...).

    Raises
    ------
    IbmaError
        As on the command line; ``code`` is the exit code.
    """
    given = {**options, "no_report": not report, "quiet": not verbose}
    return _call("participant", dataset, output_dir, maps, None, given)


def group(
    dataset: Any = None,
    output_dir: str | Path | None = None,
    *,
    maps: Maps | None = None,
    table: Any = None,
    report: bool = True,
    verbose: bool = False,
    **options: Any,
) -> AnalysisResult | Analyses:
    """Combine subjects, or studies: the level ``group``.

    Parameters
    ----------
    dataset, output_dir, report, verbose
        As of `combine_runs`.
    maps : mapping of str to sequence of images or paths, or sequence, optional
        One map of each subject or study by kind: ``{"effect": [...], "variance": [...]}``; a sequence alone is of
        effects.
    table : pandas.DataFrame, optional
        Covariates. Of ``maps``: one row each, in their order (with ``study_id`` or ``participant_id``, which may be
        absent); studies need ``study_id``. Of a dataset: as ``--covariates``.
    **options
        Those of the command line, by their long names with underscores: ``formula="1 + age"``,
        ``test=["old=age"]``, ``estimator="reml"``, ``inference=["fdr", "tfce"]``.

    Returns
    -------
    AnalysisResult or dict of str to AnalysisResult
        ``result.tests["intercept"].z`` is a nibabel image, ``.clusters`` a DataFrame; of a dataset one for each
        analysis, by name.

    Raises
    ------
    IbmaError
        As on the command line; ``code`` is the exit code.

    Examples
    --------
    >>> from ibma_app import group
    >>> result = group(maps=effects, table=people, formula="1 + age", estimator="ols")  # doctest: +SKIP
    >>> result.tests["age"].z.to_filename("age_z.nii.gz")  # doctest: +SKIP
    """
    given = {**options, "no_report": not report, "quiet": not verbose}
    return _call("group", dataset, output_dir, maps, table, given)


def _call(
    level: str, dataset: Any, output_dir: str | Path | None, maps: Maps | None, table: Any, given: dict[str, Any]
) -> AnalysisResult | Analyses:
    """Run a level on a dataset, or on maps laid out as one; return its results."""
    if (dataset is None) == (maps is None):
        raise UsageError("Give a dataset, or maps: one of the two.")
    folder = tempfile.TemporaryDirectory(prefix="ibma-app-")
    scratch = Path(folder.name)
    if maps is not None:
        about = {key: given.pop(key, None) for key in ("space", "metadata")}
        bids_dir = lay_out(scratch, maps, table, level, **about)
    else:
        bids_dir, given = _of_layout(dataset, given)
        if table is not None:
            given = {**given, "covariates": write_covariates(scratch, table)}
    target = scratch / "results" if output_dir is None else Path(output_dir)
    options = make_options(bids_dir, target, level, given)
    results = _run(options)
    views = {name: _view(record, options, folder) for name, record in results.items()}
    return views if maps is None else next(iter(views.values()))


def _of_layout(dataset: Any, given: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a dataset, and the derivatives that a layout has, as options."""
    if isinstance(dataset, str | os.PathLike):
        return Path(dataset), dict(given)
    derivatives = [str(one.root) for one in (getattr(dataset, "derivatives", None) or {}).values()]
    return Path(dataset.root), {**({"derivatives": derivatives} if derivatives else {}), **given}


def _run(options: Options) -> dict[str, Results]:
    """Run a level; return the records of its analyses.

    Raises
    ------
    IbmaError
        An analysis failed.
    """
    logs = options.output_dir / "logs"
    before = set(logs.glob("*"))
    code = run_level(options)
    made = sorted(set(logs.glob("*")) - before)
    if code != 0:
        status = json.loads((made[-1] / "run.json").read_text(encoding="utf-8"))
        told = [f"{name}: {failure['message']}" for name, failure in status["failed"].items()]
        error = IbmaError(" ".join(told))
        error.code = code
        raise error
    paths = sorted((made[-1] / "results").glob(f"*{ENDING}"))
    root = Path(options.output_dir).absolute()
    found = [read_record(path, root).results for path in paths]
    return {results.analysis.name: results for results in found}


def _view(record: Results, options: Options, folder: tempfile.TemporaryDirectory[str]) -> AnalysisResult:
    text = methods_text(record, __version__)
    is_group = record.analysis.level == "group"
    page = f"group_{record.analysis.name}" if is_group else f"sub-{record.analysis.entities['sub']}"
    kept = folder if options.output_dir.is_relative_to(folder.name) else None
    return view_results(
        record,
        ("\n\n".join(text.paragraphs), text.references),
        record.output_dir / f"{page}.html",
        kept,
    )
