"""File lists as HALFpipe, FitLins, nilearn, bidspm and giga_connectome write them."""

import pytest

from ibma_app.core.statmap import Dataset
from ibma_app.dataset.query import Query, find_statmaps


def find(root, level="participant", **settings):
    return find_statmaps([Dataset("data", root)], Query(level, **settings))


def test_halfpipes_group_maps_are_those_of_the_task_contrast(make_dataset):
    feature = "task-faces_feature-taskBased_taskcontrast-facesGtShapes"
    model = f"grouplevel/func/{feature}/model-age/{feature}_model-age_contrast"
    kinds = ("effect", "variance", "dof", "t", "z", "tau2", "sigmasquareds", "heterochisq")
    root = make_dataset(
        [f"{model}-{test}_stat-{kind}_statmap.nii.gz" for test in ("intercept", "age") for kind in kinds]
        + [f"{model}-{test}_mask.nii.gz" for test in ("intercept", "age")],
        root="study-A",
    )
    (labels,) = {tuple(one.entities.items()) for one in find(root, "group", labels={"study": ("A",)})}
    assert dict(labels) == {
        "study": "A", "task": "faces", "feature": "taskBased", "model": "age", "contrast": "facesGtShapes",
    }  # fmt: skip
    kept = find(root, "group", labels={"study": ("A",)})
    assert sorted(one.kind for one in kept) == ["dof", "effect", "t", "variance", "z"]
    assert all("contrast-intercept" in one.path.name for one in kept)
    filters = {kind: {"test": "age"} for kind in ("effect", "variance")}
    aged = find(root, "group", labels={"study": ("A",)}, filters=filters)
    assert {one.path.name.partition("_stat-")[0][-3:] for one in aged} == {"age"}


SEED = "sub-01/func/task-rest/sub-01_task-rest_feature-seedCorr_seed-pcc_stat"
FILES_OF_SOFTWARE = {
    "HALFpipe, subjects": (
        [
            *(f"sub-01/func/task-a/sub-01_task-a_feature-f_taskcontrast-aGtB_stat-{kind}_statmap.nii.gz"
              for kind in ("effect", "variance", "z", "dof")),
            *(f"{SEED}-{kind}_statmap.nii.gz" for kind in ("effect", "variance", "z", "dof")),
            "sub-01/func/task-a/sub-01_task-a_feature-f_desc-design_matrix.tsv",
            "sub-01/func/task-a/sub-01_task-a_setting-s_bold.nii.gz",
            "sub-01/func/task-a/sub-01_task-a_feature-f_taskcontrast-aGtB_mask.nii.gz",
        ],
        {("aGtB", None): 4, (None, "pcc"): 4},
    ),
    "FitLins": (
        [
            *(f"node-subjectLevel/sub-01/sub-01_contrast-aGtB_stat-{kind}_statmap.nii.gz"
              for kind in ("effect", "variance", "t", "z", "p")),
            "node-dataLevel/contrast-aGtB_stat-effect_statmap.nii.gz",
            "node-runLevel/sub-01/sub-01_task-a_run-1_contrast-aGtB_stat-effect_statmap.nii.gz",
            "node-runLevel/sub-01/sub-01_task-a_run-1_desc-modelfit_stat-rSquare_statmap.nii.gz",
        ],
        {("aGtB", None): 5},
    ),
    "nilearn": (
        [
            *(f"sub-01/sub-01_task-a_space-MNI_contrast-aGtB_stat-{kind}_statmap.nii.gz"
              for kind in ("effect", "variance", "t", "z", "p")),
            "sub-01/sub-01_task-a_space-MNI_contrast-effectsOfInterest_stat-F_statmap.nii.gz",
            "sub-01/sub-01_task-a_space-MNI_stat-rsquared_statmap.nii.gz",
            "sub-01/sub-01_task-a_space-MNI_stat-errorts_statmap.nii.gz",
            "sub-01/sub-01_task-a_space-MNI_mask.nii.gz",
        ],
        {("aGtB", None): 5},
    ),
    "bidspm": (
        [
            *(f"sub-01/task-a_space-MNI_FWHM-6/{name}" for name in ("beta_0001.nii", "con_0001.nii", "spmT_0001.nii")),
            "sub-01/task-a_space-MNI_FWHM-6/mask.nii",
            "sub-01/task-a_space-MNI_FWHM-6/sub-01_task-a_space-MNI_desc-aGtB_label-0001_p-0pt050_k-0_MC-FWE_spmT.nii",
            "sub-01/task-a_space-MNI_FWHM-6/sub-01_task-a_space-MNI_desc-aGtB_label-0001_p-0pt050_k-0_MC-FWE_mask.nii",
        ],
        {},  # SPM's own names: ibma-import spm reads them
    ),
    "giga_connectome": (
        [
            "sub-01/func/sub-01_task-rest_seg-Schaefer20187Networks_stat-PearsonCorrelation_relmat.tsv",
            "sub-01/func/sub-01_task-rest_seg-Schaefer20187Networks_timeseries.tsv",
            "sub-01/func/sub-01_task-rest_space-MNI152NLin6Asym_res-2_label-GM_mask.nii.gz",
        ],
        {},  # connectomes and masks are no statistic maps
    ),
}  # fmt: skip


@pytest.mark.parametrize("software", FILES_OF_SOFTWARE)
def test_the_files_that_software_writes(make_dataset, software):
    files, expected = FILES_OF_SOFTWARE[software]
    found = find(make_dataset(files), "group")
    labels = [(one.entities.get("contrast"), one.entities.get("seed")) for one in found]
    assert {label: labels.count(label) for label in labels} == expected
    assert {one.kind for one in found} <= {"effect", "variance", "t", "z", "p", "dof"}
