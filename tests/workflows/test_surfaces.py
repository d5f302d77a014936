"""Maps on surfaces, grayordinates and regions through the command line."""

import csv
import json
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest

import ibma_app

N = 162  # vertices of a hemisphere
SUBJECTS = 8
EFFECT = slice(20, 50)  # vertices of the left hemisphere with a true effect
BOTH = {"L": slice(0, N), "R": slice(N, 2 * N)}
QUICK = ("--no-report", "--permutations", "300")  # more than there are distinct flips
needs_workbench = pytest.mark.skipif(shutil.which("wb_command") is None, reason="Connectome Workbench is not here")


@pytest.fixture(scope="module")
def made(maker):
    return maker("made_surfaces")


@pytest.fixture(scope="module")
def values():
    """Effects of the subjects at the vertices of both hemispheres and 27 voxels."""
    rng = np.random.default_rng(11)
    effects = rng.normal(size=(SUBJECTS, 2 * N + 27))
    effects[:, EFFECT] += 3.0
    return effects.astype(np.float32)


@pytest.fixture(scope="module")
def meshes(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    points, triangles = made.icosphere()
    return [f"{side}={made.write_mesh(folder / f'{side}.surf.gii', points, triangles, side)}" for side in BOTH]


def write_subjects(made, root, values, *, space="space-toy_den-162", ending=".func.gii", sides=BOTH, kind="effect"):
    made.describe(root)
    for sub, row in enumerate(values, start=1):
        for side in sides:
            name = made.stem(f"{sub:02d}", middle=f"hemi-{side}_{space}", kind=kind)
            made.write_gifti(root / f"{name}{ending}", row[BOTH[side]])
    return root


def write_grayordinates(made, root, values, axes, ending=".dscalar.nii", **more):
    made.describe(root)
    for sub, row in enumerate(values, start=1):
        axis = axes[sub % len(axes)]
        models = dict(zip(("CORTEX_LEFT", "CORTEX_RIGHT"), BOTH.values(), strict=True))
        parts = []
        for name, _, model in axis.iter_structures():
            of = models.get(name.removeprefix("CIFTI_STRUCTURE_"))
            order = [made.NUCLEUS.tolist().index(list(one)) for one in model.voxel] if of is None else model.vertex
            parts.append(row[2 * N :][order] if of is None else row[of][order])
        name = made.stem(f"{sub:02d}", middle="space-toy_den-162", kind="effect")
        made.write_cifti(root / f"{name}{ending}", axis, np.concatenate(parts), **more)
    return root


def gifti(folder, pattern):
    return np.concatenate(
        [nib.load(next(folder.glob(f"*hemi-{side}_*{pattern}"))).darrays[0].data for side in BOTH]
    ).astype(np.float64)


def table(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def refused(ran, code, *words):
    assert ran.code == code, ran.stderr
    assert "Traceback" not in ran.stderr
    for word in words:
        assert word in ran.stderr, f"{word!r} is not in: {ran.stderr}"


def t_of(values):
    return np.sqrt(len(values)) * values.mean(axis=0) / values.std(axis=0, ddof=1)


@pytest.fixture(scope="module")
def combined(made, values, meshes, tmp_path_factory, cli):
    """Run a group of GIFTI maps with every inference that there is for it."""
    folder = tmp_path_factory.mktemp("gifti")
    root = write_subjects(made, folder / "data", values)
    ran = cli(
        root, folder / "out", "group", "--estimator", "ols", *QUICK, "--surface", *meshes,
        "--inference", "fdr", "max-stat", "cluster-size", "tfce",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    assert "voxel" not in ran.stderr
    return folder / "out" / "group"


def test_t_is_that_of_nilearn(combined, made, values):
    import pandas as pd
    from nilearn.glm.second_level import SecondLevelModel
    from nilearn.surface import InMemoryMesh, PolyMesh, SurfaceImage

    mesh = InMemoryMesh(*made.icosphere())
    both = PolyMesh(left=mesh, right=mesh)
    images = [SurfaceImage(both, {"left": row[BOTH["L"]], "right": row[BOTH["R"]]}) for row in values]
    model = SecondLevelModel().fit(images, design_matrix=pd.DataFrame({"intercept": np.ones(SUBJECTS)}))
    theirs = model.compute_contrast("intercept", second_level_stat_type="t", output_type="stat")
    expected = np.concatenate([theirs.data.parts[side].squeeze() for side in ("left", "right")])
    np.testing.assert_allclose(gifti(combined, "desc-ols_stat-t_statmap.func.gii"), expected, rtol=2e-5, atol=2e-5)


def test_files_are_those_of_the_input(combined):
    left = json.loads(next(combined.glob("*hemi-L*desc-ols_stat-t_statmap.json")).read_text())
    assert left["Structures"] == ["CORTEX_LEFT", "CORTEX_RIGHT"]
    assert left["Density"] == "162 vertices in CORTEX_LEFT, 162 vertices in CORTEX_RIGHT"
    assert set(left["Surface"]) == {"CORTEX_LEFT", "CORTEX_RIGHT"}
    assert left["VertexAreas"].startswith("mm2")
    assert len(left["Sources"]) == 2 * SUBJECTS
    right = json.loads(next(combined.glob("*hemi-R*desc-ols_stat-t_statmap.json")).read_text())
    assert right == left
    names = {path.name for path in combined.glob("*desc-ols_corr-tfce_*")}
    stem = "task-x_hemi-{}_space-toy_den-162_contrast-ab_desc-ols_corr-tfce_mask{}"
    assert {stem.format(side, end) for side in BOTH for end in (".func.gii", ".json")} <= names
    assert "task-x_space-toy_den-162_contrast-ab_desc-ols_corr-tfce_clusters.tsv" in names


def test_one_analysis_and_one_correction_over_both_hemispheres(combined, values):
    log10p = gifti(combined, "corr-fdr_stat-log10p_statmap.func.gii")
    p = 10.0 ** -gifti(combined, "desc-ols_stat-log10p_statmap.func.gii")
    order = np.argsort(p)
    adjusted = np.minimum.accumulate((p[order] * p.size / np.arange(1, p.size + 1))[::-1])[::-1]
    np.testing.assert_allclose(log10p[order], -np.log10(np.minimum(adjusted, 1.0)), atol=1e-5)
    # the null of the maximum is of both: the largest |t| of all flips at once
    flips = np.array(np.meshgrid(*[[1, -1]] * (SUBJECTS - 1))).reshape(SUBJECTS - 1, -1).T
    null = [np.abs(t_of(np.r_[1, flip][:, None] * values[:, : 2 * N])).max() for flip in flips]
    observed = np.abs(t_of(values[:, : 2 * N]))
    exact = (np.array(null)[:, None] >= observed * (1 - 1e-6)).mean(axis=0)
    found = 10.0 ** -gifti(combined, "corr-maxStat_stat-log10p_statmap.func.gii")
    np.testing.assert_allclose(found, exact, rtol=1e-5)
    assert found.min() == pytest.approx(1 / len(flips))


def test_tables_say_structure_vertex_and_area(combined, made, values):
    rows = [
        row for row in table(next(combined.glob("*corr-clusterSize_clusters.tsv"))) if row["cluster_id"].isdecimal()
    ]
    largest = max(rows, key=lambda row: float(row["area_mm2"]))
    assert (largest["structure"], largest["volume_mm3"]) == ("CORTEX_LEFT", "n/a")
    points, _ = made.icosphere()
    place = [float(largest[axis]) for axis in "xyz"]
    np.testing.assert_allclose(place, points[int(largest["vertex"])], atol=1e-3)
    z = gifti(combined, "desc-ols_stat-z_statmap.func.gii")
    assert float(largest["peak_z"]) == pytest.approx(z[int(largest["vertex"])], rel=1e-6)
    assert 0 < float(largest["area_mm2"]) < 4 * np.pi * 50.0**2


def test_runs_of_a_participant_then_the_group(made, values, tmp_path, cli):
    root = made.describe(tmp_path / "data")
    for sub, row in enumerate(values[:3], start=1):
        for run in (1, 2):
            for side, where in BOTH.items():
                for kind, one in (("effect", row[where] + run), ("variance", np.full(N, float(run)))):
                    name = made.stem(f"{sub:02d}", middle=f"run-{run}_hemi-{side}_space-toy", kind=kind)
                    made.write_gifti(root / f"{name}.gii", one)
    ran = cli(root, tmp_path / "out", "participant", "--no-report")
    assert ran.code == 0, ran.stderr
    folder = tmp_path / "out" / "sub-02" / "func"
    effect = gifti(folder, "contrast-ab_stat-effect_statmap.gii")
    np.testing.assert_allclose(effect, values[1, : 2 * N] + (1 / 1 + 2 / 2) / (1 / 1 + 1 / 2), rtol=1e-5)
    ran = cli(root, tmp_path / "out", "group", "--no-report", "--estimator", "dl", "--inference", "bonferroni")
    assert ran.code == 0, ran.stderr
    assert gifti(tmp_path / "out" / "group", "desc-dl_stat-n_statmap.gii").tolist() == [3] * (2 * N)


@pytest.mark.parametrize("wall", ["NaN", "0", "left out"])
def test_the_medial_wall_may_be_marked_in_three_ways(made, values, tmp_path, cli, wall):
    wall_of = np.arange(10)
    marked = values.copy()
    marked[:, wall_of] = np.nan if wall == "NaN" else 0.0
    if wall == "left out":
        axis = made.grayordinates(N, np.arange(10, N))
        root = write_grayordinates(made, tmp_path / "data", values, [axis])
    else:
        root = write_grayordinates(made, tmp_path / "data", marked, [made.grayordinates(N)])
    ran = cli(root, tmp_path / "out", "group", "--no-report", "--estimator", "ols", "--inference", "bonferroni")
    assert ran.code == 0, ran.stderr
    written = nib.load(next((tmp_path / "out" / "group").glob("*stat-t_statmap.dscalar.nii")))
    axis = written.header.get_axis(1)
    t, expected = written.get_fdata()[0], t_of(values)
    inside = np.r_[10 : expected.size]
    np.testing.assert_allclose(t[-inside.size :], expected[inside], rtol=1e-5)
    assert (t[: -inside.size] == 0).all()
    assert len(axis) == expected.size - (10 if wall == "left out" else 0)


def test_other_orders_of_vertices_and_voxels_are_aligned(made, values, tmp_path, cli):
    rng = np.random.default_rng(2)
    mixed = made.grayordinates(N, rng.permutation(N), rng.permutation(N), rng.permutation(made.NUCLEUS))
    swapped = [model for _, _, model in mixed.iter_structures()]
    axes = [swapped[2] + swapped[1] + swapped[0], made.grayordinates(N)]  # the second is sub-01's
    root = write_grayordinates(made, tmp_path / "data", values, axes, dtype=np.float64)
    ran = cli(root, tmp_path / "out", "group", "--no-report", "--estimator", "ols", "--inference", "bonferroni")
    assert ran.code == 0, ran.stderr
    written = nib.load(next((tmp_path / "out" / "group").glob("*stat-t_statmap.dscalar.nii")))
    assert written.header.get_axis(1) == axes[1]
    np.testing.assert_allclose(written.get_fdata()[0], t_of(values.astype(np.float64)), rtol=2e-5)


def test_regions_of_a_table(made, values, tmp_path, cli):
    root, names = made.describe(tmp_path / "data"), [f"region {number}" for number in range(40)]
    for sub, row in enumerate(values[:, 10:50], start=1):
        order = np.roll(np.arange(40), sub)
        name = made.stem(f"{sub:02d}", middle="seg-Toy", kind="effect")
        made.write_table(root / f"{name}.tsv", [names[at] for at in order], row[order])
    ran = cli(root, tmp_path / "out", "group", "--estimator", "ols", *QUICK, "--inference", "max-stat", "fdr")
    assert ran.code == 0, ran.stderr
    assert "parcels" in ran.stderr
    rows = table(next((tmp_path / "out" / "group").glob("task-x_seg-Toy_contrast-ab_desc-ols_stat-t_statmap.tsv")))
    found = {row["name"]: float(row["value"]) for row in rows}
    expected = dict(zip(names, t_of(values[:, 10:50]), strict=True))
    assert found == pytest.approx(expected, rel=1e-5)
    clusters = table(next((tmp_path / "out" / "group").glob("*corr-fdr_clusters.tsv")))
    assert len(clusters) > 10
    assert len({row["region"] for row in clusters}) == len(clusters)  # a row for each region
    assert {row["structure"] for row in clusters} == {"Toy"}
    assert {row["n_voxels"] for row in clusters} == {"1"}


def test_parcels_of_cifti(made, values, tmp_path, cli):
    root, names = made.describe(tmp_path / "data"), [f"region{number}" for number in range(12)]
    axis = made.parcels(names, N)
    for sub, row in enumerate(values[:, 15:27], start=1):
        name = made.stem(f"{sub:02d}", middle="space-toy_seg-Toy_den-162", kind="effect")
        made.write_cifti(root / f"{name}.pscalar.nii", axis, row)
    ran = cli(root, tmp_path / "out", "group", "--no-report", "--estimator", "ols", "--inference", "bonferroni")
    assert ran.code == 0, ran.stderr
    written = nib.load(next((tmp_path / "out" / "group").glob("*desc-ols_stat-t_statmap.pscalar.nii")))
    assert written.header.get_axis(1) == axis
    np.testing.assert_allclose(written.get_fdata()[0], t_of(values[:, 15:27]), rtol=1e-5)


def test_densities_by_name_and_by_number_are_one(made, values, tmp_path, cli):
    root = write_subjects(made, tmp_path / "data", values[:4], space="space-fsaverage5_den-10k")
    for number, space in ((5, "space-fsaverage5_den-10242"), (6, "space-fsaverage5")):
        for side, where in BOTH.items():
            name = made.stem(f"{number:02d}", middle=f"hemi-{side}_{space}", kind="effect")
            made.write_gifti(root / f"{name}.func.gii", values[number - 1][where])
    ran = cli(root, tmp_path / "out", "group", "--no-report", "--estimator", "ols", "--inference", "bonferroni")
    assert ran.code == 0, ran.stderr
    np.testing.assert_allclose(
        gifti(tmp_path / "out" / "group", "space-fsaverage5_den-10k_contrast-ab_desc-ols_stat-t_statmap.func.gii"),
        t_of(values[:6, : 2 * N]), rtol=1e-5,
    )  # fmt: skip


def test_one_hemisphere_is_a_map_too(made, values, tmp_path, cli):
    root = write_subjects(made, tmp_path / "data", values, sides=["R"])
    ran = cli(root, tmp_path / "out", "group", "--no-report", "--estimator", "ols", "--inference", "bonferroni")
    assert ran.code == 0, ran.stderr
    written = sorted(path.name for path in (tmp_path / "out" / "group").glob("*stat-t_statmap*"))
    assert [name.split("_space")[0] for name in written] == ["task-x_hemi-R"] * 2


def test_maps_of_unlike_elements_are_refused(made, values, tmp_path, cli):
    root = write_subjects(made, tmp_path / "data", values[:3])
    lone = next(root.glob("sub-03/*hemi-R*"))
    lone.unlink()
    group = (root, tmp_path / "out", "group", "--no-report", "--estimator", "ols")
    made.write_gifti(lone, np.zeros(N + 480))
    refused(cli(*group), 16, "do not have the same elements", "CORTEX_RIGHT (642 vertices)", "mri_surf2surf")
    write_subjects(made, root, values[3:5], space="space-toy_den-41k")
    refused(cli(*group), 16, "meshes of 2 densities", "41k", "[inputs] keep")


def lone(root, *parts):
    (found,) = (path for path in root.rglob("*.gii") if all(part in path.name for part in parts))
    return found


@pytest.mark.parametrize("lacking", [["01"], ["04"], ["01", "02", "03", "04"]])
def test_subjects_without_a_hemisphere_are_named_before_any_map_is_read(made, values, tmp_path, cli, lacking):
    root = write_subjects(made, tmp_path / "data", values)
    for label in lacking:
        lone(root, f"sub-{label}", "hemi-R").unlink()
    group = (root, tmp_path / "out", "group", "--no-report", "--estimator", "ols", "--inference", "bonferroni")
    one = len(lacking) == 1
    who = f"sub-{lacking[0]} lacks" if one else "sub-01, sub-02, sub-03 and 1 more subjects lack"
    exclude = f"--exclude-participant-label {' '.join(lacking)}"
    for options in (["--dry-run"], []):
        ran = cli(*group, *options)
        refused(ran, 16, f"{who} the right hemisphere (hemi-R) of the effect map", f"sub-{lacking[0]}_", exclude)
        assert not any(f"sub-{number:02d}" in ran.stderr for number in range(5, SUBJECTS + 1))
        assert "resample" not in ran.stderr
    assert cli(*group, *exclude.split()).code == 0
    n = gifti(tmp_path / "out" / "group", "desc-ols_stat-n_statmap.func.gii")
    assert set(n) == {SUBJECTS - len(lacking)}


def test_a_variance_without_a_hemisphere_is_named(made, values, tmp_path, cli):
    root = write_subjects(made, tmp_path / "data", values)
    write_subjects(made, root, np.ones_like(values), kind="variance")
    lone(root, "sub-04", "hemi-R", "variance").unlink()
    group = (root, tmp_path / "out", "group", "--no-report", "--inference", "bonferroni", "--estimator")
    refused(cli(*group, "dl"), 16, "sub-04 lacks the right hemisphere (hemi-R) of the variance map", "label 04.")
    assert cli(*group, "ols").code == 0  # reads no variance


@pytest.mark.parametrize("kinds", [["effect", "variance"], ["variance"]])
def test_the_run_without_a_hemisphere_is_left_out(made, values, tmp_path, cli, kinds):
    root = made.describe(tmp_path / "data")
    for run in (1, 2):
        for side, where in BOTH.items():
            for kind, one in (("effect", values[0][where] + run), ("variance", np.ones(N))):
                name = made.stem("05", middle=f"run-{run}_hemi-{side}_space-toy", kind=kind)
                made.write_gifti(root / f"{name}.gii", one)
    for kind in kinds:
        lone(root, "run-1", "hemi-R", kind).unlink()
    ran = cli(root, tmp_path / "out", "participant", "--no-report")
    assert ran.code == 0, ran.stderr
    assert "lacks the right hemisphere (hemi-R)" in ran.stderr
    assert "one grid" not in ran.stderr
    named = [line for line in ran.stderr.splitlines() if "left out" in line]
    assert named
    assert all("run-1" in line for line in named)
    folder = tmp_path / "out" / "sub-05" / "func"
    effect = gifti(folder, "contrast-ab_stat-effect_statmap.gii")
    np.testing.assert_allclose(effect, values[0, : 2 * N] + 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--smoothing", "6"], 64, ["--smoothing works on a grid of", "wb_command -metric-smoothing"]),
        (["--mask", "{mask}"], 64, ["--mask", "works on a grid of voxels"]),
        (["--mask", "template"], 64, ["--mask template works on a grid of voxels"]),
        (["--grid", "mni2mm"], 64, ["--grid mni2mm works on a grid of voxels"]),
        (["--atlas", "AAL3"], 64, ["--atlas AAL3 works on a grid of voxels"]),
        (["--regions", "AAL3"], 64, ["--regions AAL3 works on a grid of voxels"]),
        (["--inference", "rft-voxel"], 64, ["--inference rft-voxel works on", "--inference max-stat"]),
        (["--inference", "tfce"], 64, ["--surface L=FILE", "CORTEX_LEFT (162 vertices)"]),
        (["--inference", "fdr", "cluster-mass"], 64, ["--surface L=FILE"]),
    ],
)
def test_what_needs_a_grid_or_a_mesh_is_refused(made, values, tmp_path, cli, options, code, words):
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), dtype=np.int16), np.eye(4)), tmp_path / "mask.nii")
    root = write_subjects(made, tmp_path / "data", values[:4])
    given = [one.format(mask=tmp_path / "mask.nii") for one in options]
    ran = cli(root, tmp_path / "out", "group", "--no-report", "--estimator", "ols", *given)
    refused(ran, code, *words)
    assert not list((tmp_path / "out").rglob("*statmap*"))


def test_without_a_mesh_auto_does_what_it_can(made, values, tmp_path, cli):
    root = write_subjects(made, tmp_path / "data", values)
    ran = cli(root, tmp_path / "out", "group", *QUICK, "--estimator", "ols")
    assert ran.code == 0, ran.stderr
    assert "--inference auto leaves cluster-mass out, and no clusters are listed" in ran.stderr
    written = {path.name.split("corr-")[1].split("_")[0] for path in (tmp_path / "out" / "group").glob("*corr-*")}
    assert written == {"fdr", "maxStat"}


def test_surfaces_of_the_participants_own_are_not_combined_over_participants(made, values, tmp_path, cli):
    root = write_subjects(made, tmp_path / "data", values[:3], space="space-fsnative")
    refused(cli(root, tmp_path / "out", "group"), 16, "the participant's own surface (fsnative)", "fsaverage5")


def test_several_maps_in_a_file_are_refused_with_their_names(made, values, tmp_path, cli):
    root = write_grayordinates(made, tmp_path / "data", values[:3], [made.grayordinates(N)])
    path = next(root.rglob("sub-02*.dscalar.nii"))
    axis = made.grayordinates(N)
    made.write_cifti(path, axis, values[0], values[1], names=("faces", "houses"))
    ran = cli(root, tmp_path / "out", "group", "--no-report", "--estimator", "ols")
    refused(ran, 65, "holds 2 maps (faces, houses)", path.name)


def test_from_python(made, values, meshes, tmp_path):
    root = write_subjects(made, tmp_path / "data", values)
    axis = made.grayordinates(N)
    paths = sorted(write_grayordinates(made, tmp_path / "cifti", values, [axis]).rglob("*.dscalar.nii"))
    quick = {"estimator": "ols", "inference": ["bonferroni"], "report": False}
    (result,) = ibma_app.group(root, tmp_path / "out", surface=meshes, **quick).values()
    left, right = result.tests["intercept"].map("t")
    np.testing.assert_allclose(
        np.concatenate([left.darrays[0].data, right.darrays[0].data]), t_of(values[:, : 2 * N]), rtol=1e-5
    )
    alone = ibma_app.group(maps=paths, **quick)
    np.testing.assert_allclose(alone.tests["intercept"].map("t").get_fdata()[0], t_of(values), rtol=1e-5)


@needs_workbench
def test_workbench_takes_what_a_group_wrote(combined):
    path = next(combined.glob("*hemi-L*desc-ols_stat-z_statmap.func.gii"))
    told = subprocess.run(["wb_command", "-file-information", str(path)], capture_output=True, text=True, check=True)
    assert "Number of Vertices:       162" in told.stdout
