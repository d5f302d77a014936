"""Methods text on grids: what interpolation and smoothing did to the maps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibma_app.core.results import INTERPOLATED, Results
from ibma_app.report.html import format_number


def grid_sentence(settings: Mapping[str, Any]) -> str:
    """State resampling to a named grid, and smoothing."""
    grid, text = settings.get("grid", "common"), ""
    if grid == "mni2mm":
        text = "Maps on other grids were resampled linearly to nilearn's MNI152 2 mm grid."
    elif grid not in ("common", None, ""):
        text = f"Maps on other grids were resampled linearly to that of {Path(str(grid)).name}."
    smoothing = settings.get("smoothing")
    if smoothing:
        kernel = f"a Gaussian kernel of {format_number(smoothing)} mm FWHM"
        text += f"{' ' if text else ''}Effect maps were smoothed with {kernel}, each within the voxels that it covers."
    return text


def interpolation_sentence(results: Results) -> str:
    """Say what interpolation does to variances; empty where no variance was used of a map on another grid."""
    used = any("variance" in result.estimator.needs for result in results.estimators)
    count = sum(INTERPOLATED in row.derived for row in results.survey)
    if not (used and count):
        return ""
    return (
        f"Interpolation averages the noise of neighbouring voxels, and a variance map does not follow: the variance of "
        f"the {count} {'map' if count == 1 else 'maps'} on other grids is about 0.63 to 0.88 of what is stated (noise "
        "with a FWHM of 2 to 3 of their voxels), so that they have too little weight."
    )
