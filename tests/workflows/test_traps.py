"""The traps of real maps, each with the test that holds it (DESIGN 9, "Real maps").

Those of files stand beside the importers; those that take the whole way, from
other software's folder to a combined map, stand here.
"""

import ast
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import scipy.io

TESTS = Path(__file__).resolve().parents[1]
HERE = "workflows/test_traps.py"
TRAPS = {
    "variance differs 4,000,000-fold between studies (units)": [
        (HERE, "test_variances_of_other_units_go_to_z_or_are_refused"),
        ("stream/test_stack.py", "test_variances_of_other_units_raise_a_note"),
    ],
    "variance 0 inside masks": [
        ("workflows/importing/test_importing.py", "test_variance_zero_inside_the_mask_is_background")
    ],
    "NaN or 0 background": [
        (HERE, "test_background_is_nan_in_one_run_and_zero_in_another"),
        ("images/test_read.py", "test_nan_is_kept_as_it_is"),
    ],
    "run masks that differ": [(HERE, "test_background_is_nan_in_one_run_and_zero_in_another")],
    "4-D with a last axis of 1": [("images/test_read.py", "test_trailing_axes_of_one_are_dropped")],
    "5-D AFNI NIfTI whose labels live in extension code 4": [
        ("importers/afni/test_afni.py", "test_nifti_of_five_axes")
    ],
    "big-endian": [
        ("images/test_read.py", "test_formats_and_byte_orders_read_as_nibabel_reads_them"),
        ("importers/afni/test_afni.py", "test_mixed_types_byte_orders_and_factors"),
    ],
    "int16 with scale factors": [
        ("images/test_read.py", "test_scale_factors_are_applied"),
        ("importers/afni/test_afni.py", "test_a_bucket_of_24_sub_bricks"),
    ],
    "plain .nii named .nii.gz": [("images/test_read.py", "test_a_name_that_lies_about_compression_is_read")],
    "SPM.mat with empty xCon": [("importers/spm/test_spm.py", "test_an_empty_xcon_is_told")],
    "SPM.mat with 1-based M": [(HERE, "test_the_one_based_matrix_of_spm_moves_no_voxel")],
    "SPM.mat with newlines in names": [("importers/spm/test_spm.py", "test_t_is_recovered_from_effect_and_variance")],
    "FEAT without dof": [
        ("importers/fsl/test_fsl.py", "test_without_dof_it_is_points_less_rank"),
        ("importers/fsl/test_fsl.py", "test_gaps_in_the_numbers_and_no_dof"),
    ],
    "cope numbers with gaps": [("importers/fsl/test_fsl.py", "test_gaps_in_the_numbers_and_no_dof")],
    "FSL NIDM 1.1 packs hold native-space maps with standard-space peaks": [
        ("importers/nidm/test_nidm.py", "test_native_packs_are_recognised"),
        ("importers/nidm/test_nidm.py", "test_peaks_tell_native_maps"),
    ],
    "nibabel's AFNI get_space() fails on TT_N27": [("importers/afni/test_afni.py", "test_templates")],
}


@pytest.mark.parametrize("trap", TRAPS)
def test_each_trap_has_its_test(trap: str):
    for file, name in TRAPS[trap]:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}: {name}"


def _load(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_background_is_nan_in_one_run_and_zero_in_another(maker: Any, ibma_import: Any, cli: Any, tmp_path: Path):
    make, rng = maker("feat_folder"), np.random.default_rng(3)
    inside = np.zeros((2, *make.SHAPE), dtype=bool)
    inside[0, 1:-1, 1:-1, 1:-1] = inside[1, 2:, 1:-1, 1:-1] = True
    copes, varcopes = rng.normal(size=inside.shape), 0.5 + rng.random(inside.shape)
    for run, background in ((0, 0.0), (1, np.nan)):
        maps = {"A": (np.where(inside[run], copes[run], background), np.where(inside[run], varcopes[run], background))}
        folder = make.make_feat(tmp_path / f"{run}.feat", {"A": [1.0, 0.0]}, maps)
        (folder / "mask.nii.gz").unlink()
        ran = ibma_import("fsl", folder, tmp_path / "maps", "--participant-label", "01", "--run", run + 1)
        assert ran.code == 0, ran.stderr
    ran = cli(tmp_path / "maps", tmp_path / "out", "participant", "--no-report", "--nprocs", "1")
    assert ran.code == 0, ran.stderr
    func = tmp_path / "out" / "sub-01" / "func"
    np.testing.assert_array_equal(_load(func / "sub-01_contrast-A_stat-n_statmap.nii.gz"), inside.sum(axis=0))
    weights = np.where(inside, 1 / varcopes, 0.0)
    total = weights.sum(axis=0)
    mean = np.divide((weights * copes).sum(axis=0), total, out=np.zeros(total.shape), where=total > 0)
    effect = _load(func / "sub-01_contrast-A_stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(effect, mean, rtol=1e-5, atol=1e-6)  # float32 files


def test_the_one_based_matrix_of_spm_moves_no_voxel(maker: Any, ibma_import: Any, tmp_path: Path):
    make = maker("spm_folder")
    truth = make.make_first_level(tmp_path / "spm")
    content = scipy.io.loadmat(tmp_path / "spm" / "SPM.mat")["SPM"]
    shift = np.eye(4)
    shift[:3, 3] = -1  # MATLAB counts voxels from 1
    content[0, 0]["xVol"][0, 0]["M"] = make.AFFINE @ shift
    scipy.io.savemat(tmp_path / "spm" / "SPM.mat", {"SPM": content})
    ran = ibma_import("spm", tmp_path / "spm", tmp_path / "maps", "--participant-label", "01", "--contrast", "A > B=x")
    assert ran.code == 0, ran.stderr
    image = nib.load(tmp_path / "maps" / "sub-01" / "func" / "sub-01_contrast-x_stat-t_statmap.nii.gz")
    np.testing.assert_array_equal(image.affine, make.AFFINE)
    np.testing.assert_allclose(_load(image.get_filename())[truth.mask], truth.t["A > B"][truth.mask], rtol=1e-5)


@pytest.mark.parametrize("estimator", ["auto", "reml"])
def test_variances_of_other_units_go_to_z_or_are_refused(
    ibma_import: Any, cli: Any, write_statmap: Any, tmp_path: Path, estimator: str
):
    """Four studies whose units nobody tells: arbitrary scanner units beside percent."""
    rng = np.random.default_rng(4)
    rows = ["study_id\tpath\tkind\tcontrast\tsample_size\tdof"]
    for study, unit in zip("abcd", (1.0, 2000.0, 0.01, 1.0), strict=True):
        for kind, values in (("effect", unit * rng.normal(1, 1, 60)), ("variance", unit**2 * (1 + rng.random(60)))):
            path = write_statmap(tmp_path / "given", kind, values.reshape(5, 4, 3), study=study, contrast="x")
            rows.append(f"{study}\t{path.relative_to(tmp_path)}\t{kind}\tx\t20\t19")
    (tmp_path / "maps.tsv").write_text("\n".join(rows) + "\n")
    ran = ibma_import("table", tmp_path / "maps.tsv", tmp_path / "maps")
    assert ran.code == 0, ran.stderr
    words = ("--estimator", estimator, "--mask", "data", "--no-report", "--nprocs", "1")
    ran = cli(tmp_path / "maps", tmp_path / "out", "group", *words)
    written = {path.name for path in (tmp_path / "out" / "group").glob("*_stat-z_statmap.json")}
    if estimator == "auto":
        assert ran.code == 0, ran.stderr
        assert "units" in ran.stderr
        assert {json.loads((tmp_path / "out" / "group" / name).read_text())["Estimator"]["Name"] for name in written
                if "corr-" not in name} == {"stouffer-rfx", "stouffer-weighted"}  # fmt: skip
    else:
        assert ran.code == 65
        assert not written
        assert "study-a" in ran.stderr
