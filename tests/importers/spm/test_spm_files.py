"""What real SPM.mat files hold beside the design: objects, sparse matrices, empty fields, and what is missing."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from scipy.io.matlab import MatlabObject

from ibma_app.core.errors import DataError, ReadWriteError
from ibma_app.core.study import ImportRequest
from ibma_app.importers.spm.importer import read

Made = tuple[Path, Any]

# As SPM12 leaves its struct, fields that are not read included. Octave writes it as MATLAB would.
OCTAVE = r"""
n = 40; a = 0.8 * repmat([ones(5, 1); zeros(15, 1)], 2, 1); X = [a, circshift(a, 10), ones(n, 1)];
SPM.SPMid = 'SPM25: spm_spm (v25.01)'; SPM.swd = '/data/x'; SPM.nscan = n;
SPM.xBF = struct('name', 'hrf', 'dt', 0.125, 'T', 16, 'T0', 8, 'UNITS', 'secs', 'order', 1, 'bf', rand(257, 1));
none = struct('name', 'none', 'h', 0);
U = struct('name', {{'A'}, {'B'}}, 'ons', {[1; 2; 3], [4; 5]}, 'u', {speye(3), speye(3)}, 'P', {none, none});
SPM.Sess = struct('U', U, 'C', struct('C', [], 'name', {{}}), 'row', 1:n, 'col', 1:2, 'Fc', struct('i', {1, 2}));
xX = struct('X', X, 'iH', [], 'iC', 1:2, 'iB', 3, 'iG', zeros(1, 0), 'W', speye(n), 'Bcov', inv(X' * X), 'erdf', 37);
xX.name = {'Sn(1) A*bf(1)', 'Sn(1) B*bf(1)', 'Sn(1) constant'};
xX.xKXs = struct('X', X, 'tol', 1e-10, 'rk', 3, 'oP', []); xX.K = struct('HParam', 128, 'row', 1:n, 'X0', rand(n, 3));
SPM.xX = xX; SPM.xVi = struct('form', 'AR(0.2)', 'V', speye(n), 'Vi', {{speye(n), sparse(n, n)}});
SPM.xGX = struct('sGXcalc', 'mean', 'gSF', ones(n, 1), 'GM', 100);
SPM.xY.P = char('/data/f1.nii,1', '/data/f002.nii,1');
SPM.xVol = struct('M', eye(4), 'DIM', [9; 10; 7], 'S', 378);
SPM.Vbeta = struct('fname', {'beta_0001.nii', 'beta_0002.nii', 'beta_0003.nii'}, 'private', {struct(), [], struct()});
SPM.VResMS = struct('fname', 'ResMS.nii'); SPM.VM = struct('fname', 'mask.nii');
make = @(name, stat, c, con, t) struct('name', name, 'STAT', stat, 'c', c, 'eidf', 1, ...
  'Vcon', struct('fname', con), 'Vspm', struct('fname', t));
SPM.xCon = [make("A >\nB", 'T', [1; -1; 0], 'con_0001.nii', 'spmT_0001.nii'), ...
  make('A + B', 'T', sparse([2; 2; 0]), 'con_0002.nii', 'spmT_0002.nii'), ...
  make('any', 'F', [1 0; 0 1; 0 0], 'ess_0004.nii', 'spmF_0004.nii'), make('not yet', 'T', [0; 0; 0], '', '')];
SPM.xCon(4).Vcon = []; SPM.xCon(4).Vspm = []; SPM.xCon(4).eidf = [];
save(FORMAT, 'SPM.mat', 'SPM');
"""


@pytest.fixture(scope="module")
def make(maker: Callable[[str], Any]) -> Any:
    return maker("spm_folder")


@pytest.fixture
def folder(make: Any, tmp_path: Path) -> Made:
    return tmp_path, make.make_first_level(tmp_path)


@pytest.mark.parametrize("version", ["-v6", "-v7"])
def test_a_struct_that_octave_wrote(folder: Made, version: str):
    octave = shutil.which("octave-cli") or shutil.which("octave")
    if octave is None:
        pytest.skip("needs octave")
    path, truth = folder
    (path / "make.m").write_text(OCTAVE.replace("FORMAT", f"'{version}'"))
    subprocess.run([octave, "--no-gui", "-q", "make.m"], cwd=path, capture_output=True, timeout=120, check=False)
    study = read(str(path), ImportRequest())
    assert (study.software, study.level) == ("SPM25", "subject")
    assert [contrast.name for contrast in study.contrasts] == ["A > B", "A + B"]
    for contrast, name in zip(study.contrasts, ("A > B", "A + B, twice"), strict=True):
        assert contrast.units == "percent", contrast.units_source
        t = contrast.maps["effect"] / np.sqrt(contrast.maps["variance"])
        np.testing.assert_allclose(t[truth.mask], truth.t[name][truth.mask], rtol=1e-5)  # float32 files
    assert study.listed == (
        "F contrast 3, any: an F test has no sign and no effect of one dimension; it is not imported.",
        "T contrast 4, not yet: all its weights are zero.",
    )


def test_objects_are_passed_over(make: Any, folder: Made):
    path, truth = folder
    content = scipy.io.loadmat(path / "SPM.mat")["SPM"]
    array = MatlabObject(make.struct(fname="f.nii", dim=np.array([[9, 10, 7]])), "file_array")
    betas = [{"fname": f"beta_{i:04d}.nii", "private": array} for i in (1, 2, 3)]
    content[0, 0]["Vbeta"] = make.structs(betas)
    content[0, 0]["xX"][0, 0]["Bcov"] = scipy.sparse.csc_matrix(content[0, 0]["xX"][0, 0]["Bcov"])
    scipy.io.savemat(path / "SPM.mat", {"SPM": content})
    contrast = read(str(path), ImportRequest()).contrasts[0]
    t = contrast.maps["effect"] / np.sqrt(contrast.maps["variance"])
    np.testing.assert_allclose(t[truth.mask], truth.t["A > B"][truth.mask], rtol=1e-5)  # float32 files
    assert contrast.units == "percent"


def test_a_missing_con_is_made_of_the_estimates(folder: Made):
    path, truth = folder
    before = {one.name: one.maps["effect"] for one in read(str(path), ImportRequest()).contrasts}
    for number in (1, 2):
        (path / f"con_{number:04d}.nii").unlink()
    (path / "spmT_0002.nii").unlink()
    first, second, _ = read(str(path), ImportRequest()).contrasts
    for contrast in (first, second):
        effect = contrast.maps["effect"]
        np.testing.assert_allclose(effect[truth.mask], before[contrast.name][truth.mask], rtol=1e-4, atol=1e-5)
        assert "beta_0001.nii, beta_0002.nii" in contrast.derived["effect"]
        assert contrast.units == "percent"
    assert set(second.maps) == {"effect", "variance"}


def test_neither_con_nor_estimates(folder: Made):
    path, _ = folder
    for one in path.glob("con_*"):
        one.unlink()
    (path / "beta_0001.nii").unlink()
    contrasts = read(str(path), ImportRequest()).contrasts
    assert all(set(one.maps) == {"t"} and one.units == "unknown" for one in contrasts)


def test_a_first_level_is_known_by_its_columns_too(make: Any, folder: Made):
    path, _ = folder
    content = scipy.io.loadmat(path / "SPM.mat")["SPM"]
    content[0, 0]["Sess"] = np.empty((0, 0))
    content[0, 0]["xX"][0, 0]["iB"] = np.empty((0, 0))
    scipy.io.savemat(path / "SPM.mat", {"SPM": content})
    study = read(str(path), ImportRequest())
    assert study.level == "subject"
    assert study.contrasts[0].units == "percent"


def test_hdf5_that_claims_too_much_is_refused(make: Any, folder: Made):
    import h5py

    path, _ = folder
    make.write_mat73(path / "SPM.mat", scipy.io.loadmat(path / "SPM.mat")["SPM"])
    with h5py.File(path / "SPM.mat", "r+") as file:
        del file["SPM/xX/Bcov"]
        file["SPM/xX"].create_dataset(
            "Bcov", shape=(10**6, 10**6), dtype="f8", chunks=(64, 64)
        )  # no byte of it is there
    with pytest.raises(DataError, match="no SPM design is that large"):
        read(str(path), ImportRequest())


def test_hdf5_with_empty_references(make: Any, folder: Made):
    import h5py

    path, _ = folder
    make.write_mat73(path / "SPM.mat", scipy.io.loadmat(path / "SPM.mat")["SPM"])
    with h5py.File(path / "SPM.mat", "r+") as file:
        names = file["SPM/xX/name"][()]
        names[2, 0] = h5py.Reference()
        file["SPM/xX/name"][...] = names
    assert read(str(path), ImportRequest()).contrasts[0].dof == 37


def test_hdf5_references_that_multiply_are_not_followed_for_ever(make: Any, folder: Made):
    """Twelve levels of ten references each are 10^12 values in a file of a few kB."""
    import h5py

    path, _ = folder
    make.write_mat73(path / "SPM.mat", scipy.io.loadmat(path / "SPM.mat")["SPM"])
    with h5py.File(path / "SPM.mat", "r+") as file:
        below = file.create_dataset("refs/0", data=np.ones((1, 1)))
        for level in range(1, 13):
            below = file.create_dataset(f"refs/{level}", data=[[below.ref] * 10], dtype=h5py.ref_dtype)
        del file["SPM/xX/name"]
        file["SPM/xX/name"] = below
        itself = file.create_dataset("refs/self", shape=(1, 1), dtype=h5py.ref_dtype)
        itself[0, 0] = itself.ref
    start = time.process_time()
    with pytest.raises(DataError, match=r"SPM\.mat holds more than 30000 members"):
        read(str(path), ImportRequest())
    assert time.process_time() - start < 60
    with h5py.File(path / "SPM.mat", "r+") as file:
        del file["SPM/xX/name"]
        file["SPM/xX/name"] = file["refs/self"]
    with pytest.raises(DataError, match="levels deep"):
        read(str(path), ImportRequest())


@pytest.mark.parametrize("odd", ["text", "shape", "compound", "sparse"])
def test_hdf5_of_the_wrong_shape_is_told_by_file(make: Any, folder: Made, odd: str):
    import h5py

    path, _ = folder
    make.write_mat73(path / "SPM.mat", scipy.io.loadmat(path / "SPM.mat")["SPM"])
    with h5py.File(path / "SPM.mat", "r+") as file:
        del file["SPM/xX/X"]
        if odd == "text":
            file["SPM/xX/X"] = "no numbers"
        elif odd == "shape":
            file["SPM/xX/X"] = np.ones((2, 2, 2, 2))
        elif odd == "compound":
            file["SPM/xX/X"] = np.zeros(3, dtype=[("a", "f8"), ("b", "i4")])
        else:
            group = file.create_group("SPM/xX/X")
            group.attrs["MATLAB_sparse"] = np.array([3, 4])
            group["jc"] = np.array([0, 5])
    with pytest.raises(ReadWriteError, match=r"SPM\.mat .*damaged"):
        read(str(path), ImportRequest())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"erdf": 0.0}, "SPM.xX.erdf is 0"),
        ({"erdf": -4.0}, "SPM.xX.erdf is -4"),
        ({"erdf": 1e300}, "SPM.xX.erdf is 1e"),
        ({"erdf": np.nan}, "xX.erdf holds NaN"),
        ({"erdf": "many"}, "xX.erdf is 'many'"),
        ({"X": np.full((40, 3), np.inf)}, "xX.X holds NaN or infinity"),
        ({"X": "text"}, "xX.X is 'text'"),
        ({"X": np.empty((0, 10**9))}, "holds no design"),
        ({"X": np.ones((2, 20_000))}, "20000 regressors"),
        ({"Bcov": {"a": 1}}, "xX.Bcov is "),
        ({"iB": 1j}, "complex numbers"),
    ],
    ids=range(11),
)
def test_numbers_that_are_none_are_told_by_file_and_key(folder: Made, change: dict[str, Any], words: str):
    path, _ = folder
    content = scipy.io.loadmat(path / "SPM.mat")["SPM"]
    for key, value in change.items():
        content[0, 0]["xX"][0, 0][key] = value
    scipy.io.savemat(path / "SPM.mat", {"SPM": content})
    with pytest.raises((DataError, ReadWriteError), match=r"SPM\.mat") as refused:
        read(str(path), ImportRequest())
    assert words in refused.value.message
