"""SnPM folders, with the names that SnPM13 gives its files (snpm_cp.m, snpm_pp.m)."""

import nibabel as nib
import numpy as np
import pytest
import scipy.io

from ibma_app.core.errors import DataError
from ibma_app.core.study import ImportRequest
from ibma_app.importers.spm.importer import read, recognises

SHAPE = (6, 7, 8)
OTHERS = ("snpmT-", "lP+", "lP-", "lP_FWE+", "lP_FWE-", "lP_FDR+", "lP_FDR-", "beta_0001", "ResMS", "SnPM_filtered")


@pytest.fixture
def leave(tmp_path):
    """Return ``leave(words)``: a folder as SnPM leaves it; ``words`` are of its t image's header."""

    def make(words="T_{11} statistic (+ve)", *, t=True, ending=".img", **config):
        folder = tmp_path / "faces"
        folder.mkdir()
        affine = np.diag([3.0, 3.0, 3.0, 1.0])
        affine[:3, 3] = -10
        values = np.random.default_rng(2).standard_t(11, size=SHAPE).astype(np.float32)
        for stem in (*(["snpmT+"] if t else ["snpmF"]), *OTHERS):
            image = nib.Spm2AnalyzeImage(values, affine) if ending == ".img" else nib.Nifti1Image(values, affine)
            image.header["descrip"] = (words if stem == "snpmT+" else stem).encode()
            image.to_filename(folder / f"{stem}{ending}")
        scipy.io.savemat(folder / "SnPM.mat", {"df": 11.0, "STAT": "T"})
        scipy.io.savemat(folder / "SnPMcfg.mat", {"bVarSm": 0.0, "CONT": [[1.0]], **config})
        (folder / "XYZ.mat").write_bytes(b"")
        return folder, values

    return make


@pytest.mark.parametrize(
    ("words", "ending"), [("T_{11} statistic (+ve)", ".img"), ("T_{11} statistic (+ve)", ".nii"), ("", ".nii")]
)
def test_the_t_is_read_and_the_rest_is_listed(leave, words, ending):
    folder, t = leave(words, ending=ending)
    assert recognises(str(folder))
    study = read(str(folder), ImportRequest(for_study=True))
    (contrast,) = study.contrasts
    assert (study.software, study.level, contrast.name, contrast.dof) == ("SnPM", "group", "faces", 11.0)
    assert list(contrast.maps) == ["t"]
    np.testing.assert_array_equal(contrast.maps["t"], t)
    assert len(study.listed) == len(OTHERS)
    assert f"lP_FWE+{ending}: -log10 of p after correction (FWE); it is not imported" in study.listed
    assert any(text.startswith("SnPM_filtered") and "thresholded" in text for text in study.listed)
    (alone,) = read(str(folder / f"snpmT+{ending}"), ImportRequest(for_study=True)).contrasts
    assert (alone.dof, alone.sources) == (11.0, contrast.sources)


def test_a_pseudo_t_is_refused(leave):
    folder, _ = leave("SmVar T_{11} statistic, 8.000000x8.000000x8.000000 VarSm (+ve)")
    with pytest.raises(DataError, match="pseudo-t"):
        read(str(folder), ImportRequest(for_study=True))


def test_a_pseudo_t_is_refused_whatever_its_header_says(leave):
    folder, _ = leave("", bVarSm=1.0)
    with pytest.raises(DataError, match="pseudo-t"):
        read(str(folder), ImportRequest(for_study=True))


def test_an_f_is_named(leave):
    folder, _ = leave(t=False)
    assert recognises(str(folder))
    with pytest.raises(DataError, match="an F has no sign"):
        read(str(folder), ImportRequest(for_study=True))


def test_import_writes_the_t_with_its_dof(leave, ibma_import, tmp_path):
    folder, t = leave()
    words = ("--study-label", "a", "--space", "MNI152NLin6Asym", "--sample-size", "12")
    ran = ibma_import("spm", folder, tmp_path / "out", *words)
    assert ran.code == 0, ran.stderr
    (path,) = (tmp_path / "out").rglob("*_statmap.nii.gz")
    assert path.name == "study-a_space-MNI152NLin6Asym_contrast-faces_stat-t_statmap.nii.gz"
    np.testing.assert_array_equal(nib.load(path).get_fdata().astype(np.float32), t)
    assert '"DegreesOfFreedom": 11' in path.with_name(path.name.replace(".nii.gz", ".json")).read_text()
