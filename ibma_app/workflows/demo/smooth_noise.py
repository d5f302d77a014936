"""Smooth Gaussian noise of known variance and correlation: on a grid of voxels, and on the meshes of hemispheres."""

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from ibma_app.core.anatomy.elements import Elements, Shape
from ibma_app.core.grid import Grid

Floats = NDArray[np.float64]

NOISE_FWHM = 8.0  # mm
EXACT_STEPS = 8  # on meshes: as many steps of averaging as can be written as one matrix
_SIGMAS = np.sqrt(8.0 * np.log(2.0))


def smooth_noise(rng: np.random.Generator, shape: Shape, fwhm: float = NOISE_FWHM) -> Floats:
    """Draw smooth Gaussian noise of variance exactly 1 at every element of the mask: (V,).

    On meshes with a wide kernel its mean square over the elements is 1.
    """
    if isinstance(shape, Elements):
        return _noise_on_meshes(rng, shape, fwhm)
    volume = rng.standard_normal(shape.shape)
    for axis, kernel in enumerate(smoothing_kernels(shape, fwhm)):
        sigma = fwhm / _SIGMAS / np.linalg.norm(shape.affine[:3, axis])
        # The box is periodic, so that the variance at its border is that of its middle.
        volume = ndimage.gaussian_filter1d(volume, sigma, axis=axis, mode="wrap") / np.sqrt((kernel**2).sum())
    values: Floats = volume[shape.mask]
    return values


def correlations(shape: Shape, region: NDArray[np.bool_]) -> Floats:
    """Return how the noise of `NOISE_FWHM` correlates between the N elements of a region: (N, N)."""
    if isinstance(shape, Elements):
        rows = _kernel(shape, _steps(shape, NOISE_FWHM))[np.flatnonzero(region)]
        found: Floats = (rows @ rows.T).toarray()
        return found
    rho = _autocorrelation(shape)
    where = np.argwhere(shape.mask)[region]
    lags = np.abs(where[:, None, :] - where[None, :, :])
    between: Floats = rho[0][lags[..., 0]] * rho[1][lags[..., 1]] * rho[2][lags[..., 2]]
    return between


def smoothing_kernels(grid: Grid, fwhm: float) -> list[Floats]:
    """Return the discrete smoothing kernel along each axis, around voxel 0 of a periodic axis."""
    kernels = []
    for axis, length in enumerate(grid.shape):
        sigma = fwhm / _SIGMAS / np.linalg.norm(grid.affine[:3, axis])
        impulse = np.zeros(length)
        impulse[0] = 1.0
        kernels.append(ndimage.gaussian_filter1d(impulse, sigma, mode="wrap"))
    return kernels


def _autocorrelation(grid: Grid) -> list[Floats]:
    """Return the correlation of the noise at each lag along each axis."""
    correlated = []
    for kernel in smoothing_kernels(grid, NOISE_FWHM):
        power = np.fft.irfft(np.abs(np.fft.rfft(kernel)) ** 2, n=len(kernel))
        correlated.append(power / power[0])
    return correlated


def _noise_on_meshes(rng: np.random.Generator, shape: Elements, fwhm: float) -> Floats:
    """Average white noise over neighbours, as often as the kernel is wide."""
    noise, steps = rng.standard_normal(shape.n_voxels), _steps(shape, fwhm)
    if steps <= EXACT_STEPS:
        smooth: Floats = _kernel(shape, steps) @ noise
        return smooth
    for _ in range(steps):
        noise = _step(shape) @ noise
    scaled: Floats = noise / np.sqrt(np.mean(noise**2))
    return scaled


@functools.lru_cache(maxsize=4)
def _step(shape: Elements) -> sparse.csr_array:
    """Return the matrix (V, V) that brings each element halfway to the mean of its neighbours."""
    one, two = shape.pairs(26).T
    both = (np.concatenate([one, two]), np.concatenate([two, one]))
    links = sparse.csr_array((np.ones(2 * one.size), both), (shape.n_voxels,) * 2)
    mean = sparse.diags_array(1.0 / np.maximum(links.sum(axis=1), 1.0)) @ links
    return sparse.csr_array(0.5 * (sparse.eye_array(shape.n_voxels) + mean))


@functools.lru_cache(maxsize=4)
def _kernel(shape: Elements, steps: int) -> sparse.csr_array:
    """Return the matrix (V, V) that makes noise of variance 1 of white noise."""
    matrix = _step(shape)
    for _ in range(steps - 1):
        matrix = sparse.csr_array(matrix @ _step(shape))
    sizes = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.csr_array(sparse.diags_array(1.0 / sizes) @ matrix)


def _steps(shape: Elements, fwhm: float) -> int:
    """Return how often to average: a step's kernel has a quarter of an edge's square as variance along each axis."""
    one, two = shape.pairs(26).T
    places = shape.places_at(np.arange(shape.n_voxels))
    edge = float(np.linalg.norm(places[one] - places[two], axis=1).mean())
    return max(1, round((fwhm / _SIGMAS) ** 2 / (edge**2 / 4.0)))
