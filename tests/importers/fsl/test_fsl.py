"""FEAT folders: real ones, and those that code makes as FEAT writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.study import NATIVE, ImportRequest
from ibma_app.importers.fsl.design import FeatDesign, read_design
from ibma_app.importers.fsl.importer import read, recognises
from ibma_app.stats.tails import t_to_z

CONTRASTS = {"A": [1.0, 0.0], "A gt B": [2.0, -2.0]}


@pytest.fixture(scope="module")
def make(maker: Callable[[str], Any]) -> Any:
    return maker("feat_folder")


@pytest.fixture
def maps(make: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    inside = np.zeros(make.SHAPE)
    inside[1:-1, 1:-1, 1:-1] = 1
    return {name: (rng.standard_normal(make.SHAPE) * inside, rng.random(make.SHAPE) * inside) for name in CONTRASTS}


@pytest.fixture
def mean(make: Any) -> np.ndarray:
    return 9000 + 2000 * np.random.default_rng(2).random(make.SHAPE)


def test_feats_t_and_z_with_its_dof(shared: Path):
    folder = shared / "realdata" / "feat_ds011" / "ds011_sub-01_fsl_default.feat"
    assert recognises(str(folder))
    study = read(str(folder), ImportRequest())
    assert (study.software, study.level) == ("FSL (FEAT 6.00)", "subject")
    assert [contrast.name for contrast in study.contrasts] == [
        "tone counting vs baseline",
        "tone counting probe vs baseline",
    ]
    for number, contrast in enumerate(study.contrasts, start=1):
        assert (contrast.dof, contrast.space, contrast.units) == (102.0, NATIVE, "percent")
        t = np.asarray(nib.load(folder / "stats" / f"tstat{number}.nii.gz").dataobj)
        z = np.asarray(nib.load(folder / "stats" / f"zstat{number}.nii.gz").dataobj)
        inside = np.isfinite(contrast.maps["effect"]) & (t != 0)
        assert inside.sum() > 35_000
        ours = contrast.maps["effect"][inside] / np.sqrt(contrast.maps["variance"][inside])
        np.testing.assert_allclose(ours, t[inside], rtol=1e-5)
        # FSL's t to z is float32 and an approximation in the tail; 1.5e-6 was found at |z| to 7.5
        np.testing.assert_allclose(t_to_z(ours, 102.0), z[inside], rtol=1e-5, atol=1e-6)


def test_percent_of_a_real_folder_follows_mean_and_height(shared: Path):
    folder = shared / "realdata" / "feat_ds011" / "ds011_sub-01_fsl_default.feat"
    contrast = read(str(folder), ImportRequest()).contrasts[0]
    mean = np.asarray(nib.load(folder / "mean_func.nii.gz").dataobj, dtype=float)
    cope = np.asarray(nib.load(folder / "stats" / "cope1.nii.gz").dataobj, dtype=float)
    inside = contrast.grid.mask
    np.testing.assert_allclose(
        contrast.maps["effect"][inside], (100 * 0.8807876 * cope / np.where(mean > 0, mean, np.nan))[inside], rtol=1e-6
    )
    assert contrast.contrast_weights == {"tone_counting": 1.0}


def test_gaps_in_the_numbers_and_no_dof(shared: Path):
    study = read(str(shared / "realdata" / "feat_two_runs" / "run1.feat"), ImportRequest())
    names = [f"{task}_000{i}" for task in ("actie", "interoception", "situation") for i in (1, 2, 3)]
    assert [contrast.name for contrast in study.contrasts] == names
    for contrast in study.contrasts:
        assert (contrast.dof, contrast.space, contrast.units) == (None, NATIVE, "unknown")
        assert set(contrast.maps) == {"effect", "variance"}
    assert study.contrasts[3].contrast_weights == {"EV21": 1.0}


@pytest.mark.parametrize("space", [None, "MNI152NLin6Asym"])
def test_native_maps_are_refused_for_studies(shared: Path, space: str | None):
    folder = shared / "realdata" / "feat_two_runs" / "run1.feat"
    with pytest.raises(DataError, match=r"native.*featregapply"):
        read(str(folder), ImportRequest(for_study=True, space=space))


def test_registered_maps_are_taken(make: Any, maps: Any, mean: np.ndarray, tmp_path: Path):
    folder = make.make_feat(tmp_path / "a.feat", CONTRASTS, maps, mean=mean, registered=True)
    contrast = read(str(folder), ImportRequest(for_study=True)).contrasts[0]
    assert contrast.space == "MNI152NLin6Asym"
    assert "reg_standard" in contrast.sources[0]
    native = read(str(folder), ImportRequest(space="native")).contrasts[0]
    assert native.space == NATIVE


def test_percent_divides_by_the_weights_sum(make: Any, maps: Any, mean: np.ndarray, tmp_path: Path):
    folder = make.make_feat(tmp_path / "a.feat", CONTRASTS, maps, mean=mean)
    for contrast, total in zip(read(str(folder), ImportRequest()).contrasts, (1, 2), strict=True):
        cope, varcope = maps[contrast.name]
        factor = 100 * make.HEIGHT / (mean * total)
        inside = varcope > 0
        np.testing.assert_allclose(contrast.maps["effect"][inside], (cope * factor)[inside], rtol=1e-6)
        np.testing.assert_allclose(contrast.maps["variance"][inside], (varcope * factor**2)[inside], rtol=1e-6)
        assert (contrast.units, contrast.regressor_height) == ("percent", make.HEIGHT)


@pytest.mark.parametrize(
    ("contrasts", "options", "reason"),
    [
        ({"A": [1.0, 0.0], "A gt B": [1.0, -0.5]}, {}, "negative ones to -0.5"),
        (CONTRASTS, {"heights": (1.0, 2.0)}, "heights of its regressors differ"),
        (CONTRASTS, {"deriv_yn1": 1, "evs_orig": 1}, "shape"),
        (CONTRASTS, {"mean": None}, "mean_func"),
    ],
    ids=["sums", "heights", "derivative", "mean"],
)
def test_what_is_not_established_is_unknown(
    make: Any, maps: Any, mean: np.ndarray, tmp_path: Path, contrasts: Any, options: Any, reason: str
):
    folder = make.make_feat(tmp_path / "a.feat", contrasts, maps, **{"mean": mean} | options)
    contrast = read(str(folder), ImportRequest()).contrasts[1]
    assert contrast.units == "unknown"
    assert reason in contrast.units_source
    np.testing.assert_array_equal(contrast.maps["effect"], maps["A gt B"][0].astype(np.float32))


def test_without_dof_it_is_points_less_rank(make: Any, maps: Any, tmp_path: Path):
    contrast = read(str(make.make_feat(tmp_path / "a.feat", CONTRASTS, maps, dof=None)), ImportRequest()).contrasts[0]
    assert contrast.dof == make.POINTS - 2
    assert "points less its rank" in contrast.notes[0]


def test_dof_may_be_an_image(make: Any, maps: Any, tmp_path: Path):
    folder = make.make_feat(tmp_path / "a.feat", CONTRASTS, maps)
    inside = maps["A"][1] > 0
    make.save_image(folder / "stats" / "tdof_t1.nii.gz", inside * 17.0)
    make.save_image(folder / "stats" / "tdof_t2.nii.gz", inside * np.linspace(10, 20, inside.size).reshape(make.SHAPE))
    one, two = read(str(folder), ImportRequest()).contrasts
    assert (one.dof, "dof" in one.maps) == (17.0, False)
    assert (two.dof, "dof" in two.maps) == (None, True)


def test_f_tests_and_missing_copes_are_listed(make: Any, maps: Any, tmp_path: Path):
    folder = make.make_feat(tmp_path / "a.feat", CONTRASTS, maps)
    make.save_image(folder / "stats" / "zfstat1.nii.gz", maps["A"][0])
    (folder / "stats" / "cope2.nii.gz").unlink()
    study = read(str(folder), ImportRequest())
    assert [contrast.name for contrast in study.contrasts] == ["A"]
    assert ["F test 1" in study.listed[0], "cope2 is not in" in study.listed[1]] == [True, True]


def test_group_folders_take_the_lower_levels_name(make: Any, maps: Any, mean: np.ndarray, tmp_path: Path):
    folder = tmp_path / "group.gfeat" / "cope3.feat"
    make.make_feat(folder, {"group mean": [1.0]}, {"A": maps["A"]}, heights=(1.0,), mean=mean, level=2, mixed_yn=2)
    (folder / "design.lev").write_text("Lower-level contrast 3 (faces gt houses)\n")
    contrast = read(str(folder.parent), ImportRequest(for_study=True)).contrasts[0]
    assert (contrast.name, contrast.sample_size, contrast.space) == ("faces gt houses", 60.0, "MNI152NLin6Asym")
    assert contrast.units == "unknown"
    assert "lower level" in contrast.units_source


def test_a_group_folder_has_one_number_or_none(make: Any, maps: Any, mean: np.ndarray, tmp_path: Path):
    """Whether its first levels are still there: the effective regressor's height is no second definition of percent."""
    firsts = [make.make_feat(tmp_path / f"sub-{k}.feat", CONTRASTS, maps, mean=mean) for k in "abc"]
    group = tmp_path / "g.gfeat"
    for number in (1, 2):
        folder = group / f"cope{number}.feat"
        make.make_feat(folder, {"mean": [1.0]}, {"A": maps["A"]}, heights=(1.0,), mean=mean, level=2)
        with (folder / "design.fsf").open("a") as file:
            file.write("".join(f'set feat_files({k}) "{first}"\n' for k, first in enumerate(firsts, 1)))
        (folder / "design.lcon").write_text(f"{0.86 * make.HEIGHT:g}\n")  # 14 % from the regressor's own
    there = read(str(group), ImportRequest()).contrasts
    assert [contrast.units for contrast in there] == ["percent", "percent"]
    assert there[0].regressor_height == pytest.approx(make.HEIGHT)
    assert there[0].scaling_factor == pytest.approx(100 * make.HEIGHT / np.median(mean[1:-1, 1:-1, 1:-1]), rel=1e-3)
    assert there[1].scaling_factor == pytest.approx(there[0].scaling_factor / 2)  # its weights are 2 and -2
    for gone in firsts:  # one after the other: never another number
        (gone / "design.con").unlink()
        left = read(str(group), ImportRequest()).contrasts
        assert [(contrast.units, contrast.scaling_factor) for contrast in left] == [("unknown", None)] * 2
        assert "folders that design.fsf names are gone" in left[0].units_source
        np.testing.assert_array_equal(left[0].maps["effect"], maps["A"][0].astype(np.float32))


def test_first_levels_of_other_heights_have_no_percent(make: Any, maps: Any, mean: np.ndarray, tmp_path: Path):
    heights = (make.HEIGHT, 1.3 * make.HEIGHT)
    firsts = [
        make.make_feat(tmp_path / f"sub-{k}.feat", CONTRASTS, maps, heights=(one, one), mean=mean)
        for k, one in enumerate(heights)
    ]
    folder = tmp_path / "g.gfeat" / "cope1.feat"
    make.make_feat(folder, {"mean": [1.0]}, {"A": maps["A"]}, heights=(1.0,), mean=mean, level=2)
    with (folder / "design.fsf").open("a") as file:
        file.write("".join(f'set feat_files({k}) "{first}"\n' for k, first in enumerate(firsts, 1)))
    (contrast,) = read(str(folder), ImportRequest()).contrasts
    assert contrast.units == "unknown"
    assert "differ" in contrast.units_source


def test_a_third_level_looks_below_the_second(make: Any, maps: Any, mean: np.ndarray, tmp_path: Path):
    first = make.make_feat(tmp_path / "run-1.feat", CONTRASTS, maps, mean=mean)
    second = tmp_path / "sub-1.gfeat" / "cope2.feat"
    third = tmp_path / "all.gfeat" / "cope1.feat"
    for folder, below in ((second, first), (third, second / "stats" / "cope1.nii.gz")):
        make.make_feat(folder, {"mean": [1.0]}, {"A": maps["A"]}, heights=(1.0,), mean=mean, level=2)
        with (folder / "design.fsf").open("a") as file:
            file.write(f'set feat_files(1) "{below}"\n')
    (contrast,) = read(str(third), ImportRequest()).contrasts
    assert contrast.scaling_factor == pytest.approx(read(str(second), ImportRequest()).contrasts[0].scaling_factor)
    assert contrast.units == "percent"


def test_group_folders_read_the_first_level_that_is_still_there(make: Any, maps: Any, mean: np.ndarray, tmp_path: Path):
    first = make.make_feat(tmp_path / "sub-01.feat", CONTRASTS, maps, mean=mean)
    folder = make.make_feat(
        tmp_path / "g.gfeat" / "cope2.feat", {"mean": [1.0]}, {"A": maps["A"]}, heights=(1.0,), mean=mean, level=2
    )
    with (folder / "design.fsf").open("a") as file:
        file.write(f'set feat_files(1) "{first}"\n')
    contrast = read(str(folder), ImportRequest()).contrasts[0]
    assert contrast.name == "A gt B"  # 2 and -2: half
    inside = maps["A"][1] > 0
    factor = 100 * make.HEIGHT / (2 * mean)
    np.testing.assert_allclose(contrast.maps["effect"][inside], (maps["A"][0] * factor)[inside], rtol=1e-6)


def test_loose_copes_are_paired(make: Any, maps: Any, tmp_path: Path):
    for number, (cope, varcope) in enumerate(maps.values(), start=1):
        make.save_image(tmp_path / f"sub-01_cope{number}.nii.gz", cope)
        make.save_image(tmp_path / f"sub-01_varcope{number}.nii", varcope)
    (tmp_path / "dof").write_text("33\n")
    study = read(str(tmp_path), ImportRequest())
    assert [set(contrast.maps) for contrast in study.contrasts] == [{"effect", "variance"}] * 2
    assert study.contrasts[0].dof == 33
    (alone,) = read(str(tmp_path / "sub-01_varcope2.nii"), ImportRequest()).contrasts
    assert alone.sources == study.contrasts[1].sources


def test_design_fsf_is_read_and_never_run(tmp_path: Path):
    (tmp_path / "design.fsf").write_text('exec touch harm\nset fmri(level) [exec touch harm]\nset fmri(tr) "2.0"\n')
    design = read_design(tmp_path)
    assert design.settings == {"level": "[exec touch harm]", "tr": "2.0"}
    assert not (tmp_path / "harm").exists()


def test_damage_is_told(make: Any, maps: Any, tmp_path: Path):
    folder = make.make_feat(tmp_path / "a.feat", CONTRASTS, maps)
    whole = (folder / "stats" / "cope1.nii.gz").read_bytes()
    (folder / "stats" / "cope1.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadWriteError, match=r"cope1.*truncated"):
        read(str(folder), ImportRequest())
    (folder / "design.con").write_text("/Matrix\n1 0\n1\n")
    with pytest.raises(ReadWriteError, match=r"design\.con is damaged"):
        read(str(folder), ImportRequest())
    with pytest.raises(InputError, match="no FEAT folder"):
        read(str(tmp_path), ImportRequest())


@pytest.mark.parametrize(
    ("settings", "names", "has_height"),
    [
        # one EV as two gamma functions (FEAT's basis functions), or two of a custom basis (FLOBS): shapes
        ({"evs_orig": 1, "convolve1": 4, "basisfnum1": 2}, ["A (Gamma basis 1)", "A (Gamma basis 2)"], False),
        ({"evs_orig": 1, "convolve1": 7, "basisfnum1": 3}, ["A (custom basis 1)", "A (custom basis 2)"], False),
        ({"evs_orig": 1, "convolve1": 0, "shape1": 1, "nharmonics1": 1}, ["A", "A (harmonic 1)"], False),
        # the settings do not add up to the design's columns: which one is a shape cannot be told
        ({"evs_orig": 1, "convolve1": 6, "basisfnum1": 5}, ["EV1", "EV2"], False),
        # one function alone, a gamma and a double-gamma HRF: heights
        ({"convolve1": 4, "basisfnum1": 1, "convolve2": 4, "basisfnum2": 1}, ["A (Gamma basis 1)", "B"], True),
        ({"convolve1": 2, "convolve2": 3, "basisfnum1": 3}, ["A", "B"], True),
    ],
)
def test_basis_functions_have_no_height(
    make: Any, maps: Any, mean: np.ndarray, tmp_path: Path, settings: Any, names: list[str], has_height: bool
):
    folder = make.make_feat(tmp_path / "a.feat", CONTRASTS, maps, mean=mean, **settings)
    first, second = read(str(folder), ImportRequest()).contrasts
    assert list(first.contrast_weights) == names[:1]
    assert next(iter(second.contrast_weights)) == names[0]
    assert {first.units, second.units} == {"percent" if has_height else "unknown"}
    assert has_height or "shape" in first.units_source


def test_a_group_folder_without_its_own_mean_takes_that_above(make: Any, maps: Any, mean: np.ndarray, tmp_path: Path):
    folder = tmp_path / "group.gfeat" / "cope1.feat"
    make.make_feat(folder, {"mean": [1.0]}, {"A": maps["A"]}, heights=(1.0,), mean=mean, level=2, mixed_yn=2)
    first = make.make_feat(tmp_path / "sub-01.feat", CONTRASTS, maps, mean=mean)
    with (folder / "design.fsf").open("a") as file:
        file.write(f'set feat_files(1) "{first}"\n')
    (folder / "mean_func.nii.gz").rename(folder.parent / "mean_func.nii.gz")
    (contrast,) = read(str(folder.parent), ImportRequest(for_study=True)).contrasts
    assert (contrast.units, contrast.regressor_height) == ("percent", pytest.approx(make.HEIGHT))


def test_inputs_that_are_cope_images_say_which_contrast_it_is(make: Any, maps: Any, mean: np.ndarray, tmp_path: Path):
    first = make.make_feat(tmp_path / "sub-01.feat", CONTRASTS, maps, mean=mean)
    folder = make.make_feat(  # FEAT calls the only folder cope1.feat then, whatever cope went in
        tmp_path / "g.gfeat" / "cope1.feat", {"mean": [1.0]}, {"A": maps["A"]}, heights=(1.0,), mean=mean, level=2
    )
    design = (folder / "design.fsf").read_text()
    for image in ("stats/cope2.nii.gz", "reg_standard/stats/cope2"):
        (folder / "design.fsf").write_text(f'{design}set feat_files(1) "{first}/{image}"\n')
        contrast = read(str(folder), ImportRequest()).contrasts[0]
        assert contrast.name == "A gt B"
        inside = maps["A"][1] > 0
        factor = 100 * make.HEIGHT / (2 * mean)  # its weights sum to 2
        np.testing.assert_allclose(contrast.maps["effect"][inside], (maps["A"][0] * factor)[inside], rtol=1e-6)


_ONES, _GROUP = np.ones(14), np.r_[np.ones(8), np.zeros(6)]
_AGE, _PAIRS = np.linspace(-1, 1, 14), np.tile(np.eye(7), (2, 1))


@pytest.mark.parametrize(
    ("columns", "weights", "n", "groups"),
    [
        ([_ONES], [1], 14, {}),
        ([_GROUP, 1 - _GROUP], [1, -1], 14, {"n1": 8, "n2": 6}),
        ([_GROUP, 1 - _GROUP], [1, 0], 8, {}),
        ([_GROUP, 1 - _GROUP], [0.5, 0.5], 14, {}),
        ([_ONES, _GROUP], [0, 1], 14, {"n1": 8, "n2": 6}),  # the second is what the first group has more
        ([_ONES, _AGE], [1, 0], 14, {}),
        ([_ONES, _AGE], [0, 1], 14, {}),
        ([np.r_[np.ones(7), -np.ones(7)], *_PAIRS.T], [1] + [0] * 7, 7, {}),  # FSL's paired t: a column a subject
    ],
)
def test_subjects_of_group_contrasts(
    columns: list[np.ndarray], weights: list[float], n: float, groups: dict[str, float]
):
    design = FeatDesign(weights={1: np.array(weights, dtype=float)}, matrix=np.column_stack(columns))
    assert design.subjects(1) == (n, groups)


def _leave(folder, names):
    """Write what randomise or PALM leave, as images of one value."""
    folder.mkdir(parents=True)
    for name, value in names.items():
        image = nib.Nifti1Image(np.full((4, 4, 4), value, dtype=np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
        image.set_sform(image.affine, 4)
        image.to_filename(folder / f"{name}.nii.gz")
    return folder


RANDOMISE = {
    "pain_tstat1": 2.0, "pain_tfce_tstat1": 900.0, "pain_tfce_p_tstat1": 0.99, "pain_tfce_corrp_tstat1": 0.97,
    "pain_vox_p_tstat1": 0.9, "pain_vox_corrp_tstat1": 0.8, "pain_clustere_corrp_tstat1": 1.0,
    "pain_clustere_tstat1": 80.0,
    "pain_clusterm_corrp_tstat1": 1.0,
    "pain_glm_cope_tstat1": 0.5, "pain_glm_varcope_tstat1": 0.0625,
}  # fmt: skip
PALM = {
    "palm_vox_tstat_c1": 3.0, "palm_vox_tstat_uncp_c1": 0.9, "palm_vox_tstat_fwep_c1": 0.8, "palm_tfce_tstat_c1": 800.0,
    "palm_vox_tstat_uncparap_c1": 0.9, "palm_vox_tstat_fdrparap_c1": 0.9,
    "palm_tfce_tstat_fwep_c1": 0.9, "palm_clustere_tstat_fwep_c1": 0.9, "palm_vox_tstat_cfdrp_c1": 0.9,
}  # fmt: skip


def test_of_randomise_the_t_and_its_effect_are_read_and_the_rest_is_listed(tmp_path):
    study = read(str(_leave(tmp_path / "rnd", RANDOMISE)), ImportRequest(for_study=True))
    (contrast,) = study.contrasts
    values = {kind: float(contrast.maps[kind].flat[0]) for kind in contrast.maps}
    assert values == {"t": 2.0, "effect": 0.5, "variance": 0.0625}
    assert len(study.listed) == 8
    assert any(text.startswith("pain_vox_corrp_tstat1: 1 - p") for text in study.listed)
    assert any(text.startswith("pain_tfce_tstat1: threshold-free") for text in study.listed)


def test_of_palm_the_t_is_read(tmp_path):
    study = read(str(_leave(tmp_path / "palm", PALM)), ImportRequest(for_study=True))
    (contrast,) = study.contrasts
    assert {kind: float(contrast.maps[kind].flat[0]) for kind in contrast.maps} == {"t": 3.0}
    assert len(study.listed) == 8
    assert "palm_vox_tstat_uncp_c1: p (as p, 1 - p or -log10 p), no statistic to combine" in study.listed


@pytest.mark.parametrize("name", ["pain_tfce_corrp_tstat1", "pain_vox_p_tstat2", "palm_vox_tstat_fwep_c1"])
def test_an_image_that_is_no_statistic_is_refused_by_name(tmp_path, name):
    folder = _leave(tmp_path / "rnd", {name: 0.9})
    with pytest.raises(DataError, match=name):
        read(str(folder / f"{name}.nii.gz"), ImportRequest(for_study=True))
