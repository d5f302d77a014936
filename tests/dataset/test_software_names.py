"""File lists as HALFpipe, FitLins, nilearn, bidspm and giga_connectome write them."""

import pytest

from ibma_app.core.statmap import Dataset
from ibma_app.dataset.query import Query, find_statmaps


def find(root, level="participant", **settings):
    return find_statmaps([Dataset("data", root)], Query(level, **settings))


def test_halfpipes_group_maps_are_those_of_the_task_contrast(make_dataset):
    feature = "task-faces_feature-taskBased_taskcontrast-facesGtShapes"
    model = f"grouplevel/func/{feature}/model-age/{feature}_model-age"
    kinds = ("effect", "variance", "dof", "t", "z", "f", "sigmasquareds")
    # no maps of the contrast: z and dof of a test whether values are missing at random, and of heterogeneity
    others = [f"mcar_stat-{kind}" for kind in ("chisq", "dof", "z")]
    others += [f"heterogeneity_stat-{kind}" for kind in ("chisq", "gof", "noise", "z")]
    root = make_dataset(
        [f"{model}_contrast-{test}_stat-{kind}_statmap.nii.gz" for test in ("intercept", "age") for kind in kinds]
        + [f"{model}_contrast-{test}_mask.nii.gz" for test in ("intercept", "age")]
        + [f"{model}_algorithm-{other}_statmap.nii.gz" for other in others]
        + [f"{model}_desc-design_matrix.tsv", f"{model}_desc-contrast_matrix.tsv"],
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
    asked = find(root, "group", labels={"study": ("A",)}, filters={"z": {"algorithm": "mcar"}})
    assert [one.path.name.partition("_model-age_")[2] for one in asked] == ["algorithm-mcar_stat-z_statmap.nii.gz"]


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
            "sub-01/func/sub-01_task-a_stat-tsnr_boldmap.nii.gz",
            "sub-01/func/task-a/sub-01_task-a_feature-f_desc-confounds_regressors.tsv",
            "sub-01/func/task-rest/sub-01_task-rest_feature-f_atlas-x_desc-correlation_matrix.tsv",
            "sub-01/func/task-rest/sub-01_task-rest_feature-f_alff.nii.gz",
            "sub-01/func/task-rest/sub-01_task-rest_feature-f_reho.nii.gz",
        ],
        {("aGtB", None): 4, (None, "pcc"): 4},
    ),
    "FitLins": (
        [
            *(f"node-subjectLevel/sub-01/sub-01_contrast-aGtB_stat-{kind}_statmap.nii.gz"
              for kind in ("effect", "variance", "t", "z", "p")),
            "node-dataLevel/contrast-aGtB_stat-effect_statmap.nii.gz",
            "node-runLevel/sub-01/sub-01_task-a_run-1_contrast-aGtB_stat-effect_statmap.nii.gz",
            *(f"node-runLevel/sub-01/sub-01_task-a_run-1_space-MNI_stat-{kind}_statmap.nii.gz" for kind in (
                "rSquare", "logLikelihood", "tsnr", "errorts", "a", "b", "lam", "LjungBox", "residtsnr", "residwhstd")),
            "node-runLevel/sub-01/sub-01_task-a_run-1_design.tsv",
            "node-subjectLevel/sub-01/sub-01_contrast-aGtB_stat-Meta_statmap.nii.gz",
            "node-subjectLevel/sub-01/sub-01_contrast-aGtB_stat-F_statmap.nii.gz",
            "node-subjectLevel/sub-01/sub-01_contrast-aGtB_stat-effect_statmap.dscalar.nii",
            "node-runLevel/reports/sub-01/figures/run-1/sub-01_task-a_run-1_contrast-aGtB_stat-effect_ortho.png",
        ],
        {("aGtB", None): 6},  # that of grayordinates, too
    ),
    "nilearn": (
        [
            *(f"sub-01/sub-01_task-a_space-MNI_contrast-aGtB_stat-{kind}_statmap.nii.gz"
              for kind in ("effect", "variance", "t", "z", "p")),
            "sub-01/sub-01_task-a_space-MNI_contrast-effectsOfInterest_stat-F_statmap.nii.gz",
            "sub-01/sub-01_task-a_space-MNI_stat-rsquared_statmap.nii.gz",
            "sub-01/sub-01_task-a_space-MNI_stat-errorts_statmap.nii.gz",
            "sub-01/sub-01_task-a_space-MNI_mask.nii.gz",
            "sub-01/sub-01_task-a_space-MNI_run-1_design.tsv",
            "sub-01/sub-01_task-a_space-MNI_run-1_design.json",
            "sub-01/sub-01_task-a_space-MNI_statmap.json",
            "sub-01/sub-01_task-a_space-MNI_contrast-aGtB_clusters.tsv",
        ],
        {("aGtB", None): 5},
    ),
    "bidspm": (
        [
            *(f"sub-01/task-a_space-MNI_FWHM-6_node-runLevel/{name}.nii" for name in (
                "beta_0001", "con_0001", "s6con_0001", "spmT_0001", "mask", "ResMS", "RPV")),
            "derivatives/bidspm-groupStats/sub-ALL_task-a_space-MNI_FWHM-6_conFWHM-0_node-dataset_contrast-a/con_0001.nii",
            "sub-01/task-a_space-MNI_FWHM-6/sub-01_task-a_space-MNI_desc-aGtB_label-0001_p-0pt050_k-0_MC-FWE_spmT.nii",
            "sub-01/task-a_space-MNI_FWHM-6/sub-01_task-a_space-MNI_desc-aGtB_label-0001_p-0pt050_k-0_MC-FWE_mask.nii",
        ],
        {},  # SPM's own names: ibma-import spm reads them
    ),
    "giga_connectome": (
        [
            *(f"sub-1/ses-1/func/sub-1_ses-1_task-rest_run-01_seg-Schaefer2018100Parcels7Networks_{name}" for name in (
                "meas-PearsonCorrelation_desc-denoiseSimple_relmat.tsv", "desc-denoiseSimple_timeseries.tsv")),
            "sub-1/func/sub-1_seg-Schaefer2018100Parcels7Networks_dseg.nii.gz",
            "meas-PearsonCorrelation_relmat.json",
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
