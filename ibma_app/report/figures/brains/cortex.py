"""Maps on the cortical surface: nilearn's fsaverage5, which lies inside the package."""

import functools
import io
import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibma_app.core.grid import Grid
from ibma_app.images.write import to_nibabel
from ibma_app.report.figures.brains.slices import BAR_HEIGHT, LABEL_HEIGHT
from ibma_app.report.figures.picture import Panel, Picture, Scale, draw_bar
from ibma_app.report.html import data_uri

Floats = NDArray[np.float64]

VIEWS = (("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral"))
WIDTH, HEIGHT = 940.0, 190.0
DPI = 140

logger = logging.getLogger(__name__)


def draw_cortex(
    grid: Grid, volume: Floats, scale: Scale, caption: str, shown: NDArray[np.bool_] | None = None
) -> Picture | None:
    """Draw a map of an MNI space on the inflated cortex of both hemispheres.

    Values are means between white matter and pial surface, over voxels of the
    mask; they are drawn where more than half of these voxels are ``shown``.

    Parameters
    ----------
    grid : Grid
    volume : (X, Y, Z) array
    scale : Scale
        Of its limits and palette; its threshold is not used.
    caption : str
    shown : (X, Y, Z) array of bool, optional
        Where the map is significant; None: everywhere.

    Returns
    -------
    Picture or None
        None where the map does not reach the cortex, with a warning in the log when nilearn could not draw.
    """
    try:
        values = sample_surface(grid, volume)
        if shown is not None:
            passed = sample_surface(grid, shown.astype(np.float64))
            values = {side: np.where(passed[side] > 0.5, one, np.nan) for side, one in values.items()}
        if not any(np.isfinite(one).any() for one in values.values()):
            return None
        uri = _draw(values, scale)
    except (ValueError, IndexError, TypeError, OSError, np.linalg.LinAlgError) as error:
        logger.warning("No surface view of this map: %s", error)
        return None
    words = (f"{side} hemisphere, {view}" for side, view in VIEWS)
    return Picture(
        width=WIDTH,
        height=LABEL_HEIGHT + HEIGHT + BAR_HEIGHT,
        panels=(Panel(uri, 0.0, LABEL_HEIGHT, WIDTH, HEIGHT),),
        labels=tuple((index * WIDTH / 4 + 20.0, LABEL_HEIGHT - 4.0, text) for index, text in enumerate(words)),
        bar=draw_bar(scale, LABEL_HEIGHT + HEIGHT + 10.0, WIDTH),
        alt=f"Cortical surface with {scale.label}",
        caption=caption,
    )


def sample_surface(grid: Grid, volume: Floats) -> dict[str, Floats]:
    """Sample a volume between white matter and pial surface of fsaverage5: hemisphere -> (10242,), NaN off the mask."""
    from nilearn.surface import SurfaceImage

    meshes = _meshes()
    # NaN: voxels outside of the mask are left out of the means
    image = to_nibabel(np.where(grid.mask, volume, np.nan), grid)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")  # outside of the mask, where NaN is right
        sampled = SurfaceImage.from_volume(mesh=meshes["pial"], volume_img=image, inner_mesh=meshes["white_matter"])
    return {side: np.asarray(part, dtype=np.float64).reshape(-1) for side, part in sampled.data.parts.items()}


@functools.cache
def _meshes() -> dict[str, Any]:
    """Load fsaverage5 and its depth of sulci from nilearn's package: nothing is fetched."""
    from nilearn.datasets import load_fsaverage, load_fsaverage_data

    return {
        **load_fsaverage("fsaverage5"),
        "depth": load_fsaverage_data(mesh="fsaverage5", mesh_type="inflated", data_type="sulcal"),
    }


def _draw(values: dict[str, Floats], scale: Scale) -> str:
    """Draw the four views with nilearn, on a transparent background."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from nilearn.plotting import plot_surf_stat_map

    meshes = _meshes()
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100))
    try:
        for index, (side, view) in enumerate(VIEWS):
            axes: Any = figure.add_axes((index / 4, 0.0, 0.25, 1.0), projection="3d")
            plot_surf_stat_map(
                surf_mesh=meshes["inflated"].parts[side],
                stat_map=np.nan_to_num(values[side] if scale.signed else np.maximum(values[side], 0.0)),
                threshold=1e-6 * scale.high,
                avg_method="median",  # a mean would fade the border towards 0
                bg_map=meshes["depth"].data.parts[side].reshape(-1),
                hemi=side,
                view=view,
                cmap=scale.colour_map,
                vmin=scale.low,
                vmax=scale.high,
                colorbar=False,
                axes=axes,
                figure=figure,
            )
            axes.patch.set_alpha(0.0)
            axes.set_box_aspect(None, zoom=1.5)
        stream = io.BytesIO()
        figure.savefig(stream, dpi=DPI, transparent=True, metadata={"Software": None})
    finally:
        plt.close(figure)
    return data_uri(stream.getvalue())
