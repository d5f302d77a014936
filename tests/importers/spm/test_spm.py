"""SPM folders, made by code as SPM writes them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import scipy.io

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.study import ImportedContrast, ImportRequest
from ibma_app.importers.spm.importer import read, recognises

Made = tuple[Path, Any]


@pytest.fixture(scope="module")
def make(maker: Callable[[str], Any]) -> Any:
    return maker("spm_folder")


@pytest.fixture(scope="module")
def folder(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("spm")
    return path, make.make_first_level(path)


def _t(contrast: ImportedContrast) -> np.ndarray:
    return contrast.maps["effect"] / np.sqrt(contrast.maps["variance"])


@pytest.mark.parametrize("ending", [".nii", ".img"])
def test_t_is_recovered_from_effect_and_variance(make: Any, tmp_path: Path, ending: str):
    truth = make.make_first_level(tmp_path, ending)
    study = read(str(tmp_path), ImportRequest())
    assert (study.software, study.level) == ("SPM12", "subject")
    for contrast, (name, t) in zip(study.contrasts, truth.t.items(), strict=True):
        assert contrast.name == " ".join(name.split())  # a newline in a name is a space
        assert contrast.dof == truth.dof
        assert np.array_equal(contrast.grid.mask, truth.mask)
        np.testing.assert_allclose(_t(contrast)[truth.mask], t[truth.mask], rtol=1e-5)  # float32 files
        np.testing.assert_allclose(contrast.maps["t"][truth.mask], t[truth.mask], rtol=1e-6)
        assert "ResMS" in contrast.derived["variance"]


def test_percent_signal_change_by_mean_height_and_weights(make: Any, folder: Made):
    path, truth = folder
    sums = {"A > B": 1.0, "A + B, twice": 4.0, "A\nalone": 1.0}
    for contrast, (name, effect) in zip(read(str(path), ImportRequest()).contrasts, truth.effect.items(), strict=True):
        factor = 100 * make.HEIGHT / (truth.mean * sums[name])
        assert contrast.units == "percent"
        assert contrast.regressor_height == pytest.approx(make.HEIGHT)
        np.testing.assert_allclose(contrast.maps["effect"][truth.mask], (effect * factor)[truth.mask], rtol=2e-6)
        assert contrast.scaling_factor == pytest.approx(np.median(factor[truth.mask]), rel=1e-6)
    assert contrast.contrast_weights == {"Sn(1) A*bf(1)": 1.0}


def test_without_resms_the_variance_is_left_to_con_and_t(folder: Made, tmp_path: Path):
    shutil.copytree(folder[0], tmp_path / "spm")
    (tmp_path / "spm" / "ResMS.nii").unlink()
    contrast = read(str(tmp_path / "spm"), ImportRequest()).contrasts[0]
    assert set(contrast.maps) == {"effect", "t"}  # the workflow derives (effect / t)²


def test_resms_of_another_model_is_not_used(make: Any, folder: Made, tmp_path: Path):
    shutil.copytree(folder[0], tmp_path / "spm")
    make.save_image(tmp_path / "spm" / "ResMS.nii", np.full(make.SHAPE, 3.0))
    contrast = read(str(tmp_path / "spm"), ImportRequest()).contrasts[0]
    assert set(contrast.maps) == {"effect", "t"}
    assert "does not fit" in contrast.notes[0]


def test_f_contrasts_are_listed_and_not_imported(folder: Made):
    study = read(str(folder[0]), ImportRequest())
    assert len(study.contrasts) == 3
    (listed,) = study.listed
    assert listed.startswith("F contrast 4, any: an F test has no sign")


def test_matlab_73(make: Any, folder: Made, tmp_path: Path):
    shutil.copytree(folder[0], tmp_path / "spm")
    content = scipy.io.loadmat(folder[0] / "SPM.mat")["SPM"]
    make.write_mat73(tmp_path / "spm" / "SPM.mat", content)
    ours, reference = read(str(tmp_path / "spm"), ImportRequest()), read(str(folder[0]), ImportRequest())
    for one, other in zip(ours.contrasts, reference.contrasts, strict=True):
        assert (one.name, one.dof, one.contrast_weights) == (other.name, other.dof, other.contrast_weights)
        assert one.units_source == other.units_source
        np.testing.assert_array_equal(one.maps["variance"], other.maps["variance"])
    assert ours.listed == reference.listed


def test_links_to_other_files_in_hdf5_are_refused(make: Any, folder: Made, tmp_path: Path):
    import h5py

    make.write_mat73(tmp_path / "other.mat", scipy.io.loadmat(folder[0] / "SPM.mat")["SPM"])
    with h5py.File(tmp_path / "SPM.mat", "w") as file:
        file["SPM"] = h5py.ExternalLink("other.mat", "SPM")
    with pytest.raises(DataError, match="link"):
        read(str(tmp_path), ImportRequest())


def test_the_mean_is_needed_for_percent(folder: Made, tmp_path: Path):
    shutil.copytree(folder[0], tmp_path / "spm")
    (tmp_path / "spm" / "beta_0003.nii").unlink()
    contrast = read(str(tmp_path / "spm"), ImportRequest()).contrasts[0]
    assert contrast.units == "unknown"
    assert "beta_0003" in contrast.units_source
    assert contrast.scaling_factor is None


def _rewrite(path: Path, dof: float = 37.0, **fields: object) -> None:
    content = scipy.io.loadmat(path)["SPM"]
    for name, value in fields.items():
        content[0, 0][name] = value
    scipy.io.savemat(path, {"SPM": content})


def test_an_empty_xcon_is_told(folder: Made, tmp_path: Path):
    shutil.copytree(folder[0], tmp_path / "spm")
    _rewrite(tmp_path / "spm" / "SPM.mat", xCon=np.empty((0, 0)))
    with pytest.raises(DataError, match="xCon is empty"):
        read(str(tmp_path / "spm"), ImportRequest())


@pytest.mark.parametrize(
    ("column", "reason"),
    [("Sn(1) A*bf(2)", "shape"), ("Sn(1) AxRT^1*bf(1)", "modulator")],
)
def test_what_is_no_height_has_no_percent(make: Any, folder: Made, tmp_path: Path, column: str, reason: str):
    shutil.copytree(folder[0], tmp_path / "spm")
    content = scipy.io.loadmat(tmp_path / "spm" / "SPM.mat")["SPM"]
    content[0, 0]["xX"][0, 0]["name"] = make.cells([column, "Sn(1) B*bf(1)", "Sn(1) constant"])
    scipy.io.savemat(tmp_path / "spm" / "SPM.mat", {"SPM": content})
    contrast = read(str(tmp_path / "spm"), ImportRequest()).contrasts[0]
    assert contrast.units == "unknown"
    assert reason in contrast.units_source


def test_a_basis_without_a_height_has_no_percent(make: Any, folder: Made, tmp_path: Path):
    shutil.copytree(folder[0], tmp_path / "spm")
    for name, order, units in (
        ("hrf (with time derivative)", 2.0, "percent"),
        ("Finite Impulse Response", 8.0, "unknown"),
    ):
        _rewrite(tmp_path / "spm" / "SPM.mat", xBF=make.struct(name=name, order=order))
        contrast = read(str(tmp_path / "spm"), ImportRequest()).contrasts[0]
        assert contrast.units == units, contrast.units_source


def test_sessions_share_the_mean_by_their_weights(make: Any, tmp_path: Path):
    rng = np.random.default_rng(3)
    block = make.boxcar(0)
    zero, one = np.zeros(make.SCANS), np.ones(make.SCANS)
    design = np.column_stack([np.r_[block, zero], np.r_[zero, block], np.r_[one, zero], np.r_[zero, one]])
    names = [f"Sn({i}) {what}" for what in ("A*bf(1)", "constant") for i in (1, 2)]
    entry = {"name": "A", "STAT": "T", "c": np.array([[3.0], [1.0], [0.0], [0.0]]), "eidf": 1.0,
             "Vcon": make.struct(fname="con_0001.nii"), "Vspm": make.struct(fname="spmT_0001.nii")}  # fmt: skip
    content = make.make_struct(design, np.linalg.inv(design.T @ design), 70.0, [entry], ".nii")
    content[0, 0]["xX"][0, 0]["name"] = make.cells(names)
    content[0, 0]["xX"][0, 0]["iB"] = np.array([[3.0, 4.0]])
    scipy.io.savemat(tmp_path / "SPM.mat", {"SPM": content})
    effect, first, second = rng.normal(size=make.SHAPE), 500 + rng.random(make.SHAPE), 900 + rng.random(make.SHAPE)
    for name, values in {"con_0001": effect, "beta_0003": first, "beta_0004": second}.items():
        make.save_image(tmp_path / f"{name}.nii", values)
    (contrast,) = read(str(tmp_path), ImportRequest()).contrasts
    expected = effect * 100 * make.HEIGHT / (4 * (0.75 * first + 0.25 * second))
    np.testing.assert_allclose(contrast.maps["effect"], expected, rtol=1e-6)
    assert "beta_0003.nii and beta_0004.nii" in contrast.units_source


def test_concatenated_sessions_share_the_mean_by_their_scans(make: Any, tmp_path: Path):
    scans = 2 * make.SCANS
    first = np.arange(scans) < 20  # spm_fmri_concatenate: regressors of one session, constants of two
    design = np.column_stack([np.r_[make.boxcar(0), make.boxcar(0)], first, ~first]).astype(float)
    entry = {"name": "A", "STAT": "T", "c": np.array([[1.0], [0.0], [0.0]]), "eidf": 1.0,
             "Vcon": make.struct(fname="con_0001.nii"), "Vspm": make.struct(fname="spmT_0001.nii")}  # fmt: skip
    content = make.make_struct(design, np.linalg.inv(design.T @ design), 70.0, [entry], ".nii")
    content[0, 0]["xX"][0, 0]["name"] = make.cells(["Sn(1) A*bf(1)", "Sn(1) constant", "Sn(2) constant"])
    content[0, 0]["xX"][0, 0]["iB"] = np.array([[2.0, 3.0]])
    scipy.io.savemat(tmp_path / "SPM.mat", {"SPM": content})
    effect, means = np.ones(make.SHAPE), {"beta_0002": 500.0, "beta_0003": 900.0}
    for name, value in {"con_0001": 1.0, **means}.items():
        make.save_image(tmp_path / f"{name}.nii", effect * value)
    (contrast,) = read(str(tmp_path), ImportRequest()).contrasts
    mean = (500 * 20 + 900 * (scans - 20)) / scans
    np.testing.assert_allclose(contrast.maps["effect"], 100 * make.HEIGHT / mean, rtol=1e-6)


def test_second_levels_tell_n_and_groups(make: Any, folder: Made, tmp_path: Path):
    shutil.copytree(folder[0], tmp_path / "spm")
    group = np.repeat([1.0, 0.0], [16, 24])
    design = np.column_stack([group, 1 - group, np.linspace(-1, 1, 40)])
    names = make.cells(["Group_{1}", "Group_{2}", "age"])
    xx = make.struct(X=design, name=names, iB=np.empty((0, 0)), Bcov=np.linalg.inv(design.T @ design), erdf=37.0)
    _rewrite(tmp_path / "spm" / "SPM.mat", Sess=np.empty((0, 0)), xX=xx)
    study = read(str(tmp_path / "spm"), ImportRequest())
    assert study.level == "group"
    difference, _, first = study.contrasts
    assert (difference.sample_size, difference.columns) == (40.0, {"n1": 16.0, "n2": 24.0})
    assert first.sample_size == 16.0
    assert difference.units == "unknown"
    assert "second-level" in difference.units_source


def test_loose_images_tell_name_and_dof_in_their_headers(folder: Made, tmp_path: Path):
    for name in ("con_0001.nii", "spmT_0001.nii"):
        shutil.copy(folder[0] / name, tmp_path)
    study = read(str(tmp_path / "con_0001.nii"), ImportRequest())
    (contrast,) = study.contrasts
    assert (contrast.name, contrast.dof, set(contrast.maps)) == ("A > B", 37.0, {"effect", "t"})
    assert contrast.units == "unknown"


def test_real_analyze_images_of_spm2(shared: Path):
    path = shared / "realdata" / "wager2008" / "con" / "con_00810001.img"
    assert recognises(str(path))
    (contrast,) = read(str(path), ImportRequest()).contrasts
    assert contrast.name == "Reapp_Neg_Stim > Look_Neg_Stim"
    np.testing.assert_array_equal(contrast.maps["effect"], np.asarray(nib.load(path).dataobj)[..., 0])
    assert contrast.grid.affine[0, 0] < 0


def test_what_is_no_spm_folder_is_told(tmp_path: Path):
    assert not recognises(str(tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        read(str(tmp_path / "nowhere"), ImportRequest())
    (tmp_path / "SPM.mat").write_bytes(b"not MATLAB at all" * 40)
    with pytest.raises(ReadWriteError, match="damaged"):
        read(str(tmp_path), ImportRequest())
    scipy.io.savemat(tmp_path / "SPM.mat", {"other": 1.0})
    with pytest.raises(DataError, match="SPM"):
        read(str(tmp_path), ImportRequest())
