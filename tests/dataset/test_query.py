"""Which maps a query finds, in the names of the software that writes them."""

import json
import os
import time

import pytest

from ibma_app.core.errors import DatasetError, InputError, OutputError, UsageError
from ibma_app.core.statmap import Dataset
from ibma_app.dataset.filters import read_filter_file, read_labels
from ibma_app.dataset.level_rules import require_content
from ibma_app.dataset.query import Query, explain_nothing, find_statmaps


def find(root, level="participant", exclude=(), **settings):
    return find_statmaps([Dataset("data", root)], Query(level, **settings), exclude)


def names(statmaps):
    return [statmap.path.name for statmap in statmaps]


def test_nilearn_names(make_dataset):
    root = make_dataset(
        {
            "sub-01/sub-01_task-x_contrast-a_stat-effect_statmap.nii.gz": "",
            "sub-01/sub-01_task-x_contrast-a_stat-F_statmap.nii.gz": "",
            "sub-01/sub-01_task-x_contrast-a_stat-variance_statmap.nii.gz": "",
            "sub-01/sub-01_task-x_stat-rsquared_statmap.nii.gz": "",
            "sub-01/sub-01_task-x_mask.nii.gz": "",
            "sub-01/sub-01_task-x_contrast-a_statmap.json": {"DegreesOfFreedom": 102.0},
            "sub-01/sub-01_statmap.json": {"Description": "nilearn", "DegreesOfFreedom": 1},
        }
    )
    statmaps = find(root)
    assert [one.kind for one in statmaps] == ["effect", "variance"]
    assert statmaps[0].entities == {"sub": "01", "task": "x", "contrast": "a"}
    assert statmaps[0].metadata == {"Description": "nilearn", "DegreesOfFreedom": 102.0}
    assert statmaps[0].uris == ("bids:data:sub-01/sub-01_task-x_contrast-a_stat-effect_statmap.nii.gz",)


def test_folders_above_the_dataset_do_not_count(make_dataset):
    root = make_dataset(["sub-01/contrast-a_stat-t_statmap.nii"], root="sub-99/ses-9/study-z/data")
    (one,) = find(root)
    assert one.entities == {"sub": "01", "contrast": "a"}


def test_halfpipe_and_unknown_entities(make_dataset):
    root = make_dataset(
        [
            "sub-1/func/sub-1_task-a_feature-f_foo-1_taskcontrast-b_stat-effect_statmap.nii.gz",
            "sub-1/func/sub-1_task-a_feature-f_foo-2_taskcontrast-b_stat-effect_statmap.nii.gz",
        ]
    )
    one, two = find(root)
    assert one.entities["contrast"] == "b"
    assert (one.entities["foo"], two.entities["foo"]) == ("1", "2")
    assert names(find(root, filters={"effect": {"foo": "2"}})) == [two.path.name]


def test_fitlins_nodes(make_dataset):
    runs = [f"node-runLevel/sub-01/sub-01_run-{run}_contrast-a_stat-effect_statmap.nii.gz" for run in (1, 2)]
    subject = "node-subjectLevel/sub-01/sub-01_contrast-a_stat-effect_statmap.nii.gz"
    root = make_dataset([*runs, subject, "node-dataset/contrast-a_stat-effect_statmap.nii.gz"])
    assert [one.entities["run"] for one in find(root)] == ["1", "2"]
    (one,) = find(root, "group")
    assert one.entities["node"] == "subjectLevel"
    assert find(root, "group", filters={"effect": {"node": "runLevel"}}) == ()


def test_contrast_in_another_entity(make_dataset):
    root = make_dataset(["sub-01/sub-01_desc-IniFF_effect.nii.gz", "sub-01/sub-01_desc-IniSF_effect.nii.gz"])
    filters = {"effect": {"suffix": "effect", "desc": "*", "stat": None}}
    (one,) = find(root, filters=filters, contrast_entity="desc", labels={"contrast": ("IniSF",)})
    assert (one.kind, one.entities) == ("effect", {"sub": "01", "contrast": "IniSF"})


def test_labels_and_filters(make_dataset):
    root = make_dataset(
        [
            f"sub-{sub}/sub-{sub}_run-0{run}{desc}_contrast-{contrast}_stat-t_statmap.nii.gz"
            for sub in ("01", "02")
            for run in (1, 2)
            for contrast in ("a", "b")
            for desc in ("", "_desc-x")
        ]
    )
    assert len(find(root)) == 16
    assert len(find(root, labels={"sub": ("02",), "contrast": ("a", "none")})) == 4
    assert len(find(root, filters={"t": {"desc": None, "run": ["1"]}})) == 4
    assert len(find(root, filters={"t": {"desc": "*"}})) == 8
    with pytest.raises(UsageError, match=r"unknown entity .bogus.; there are .*subject"):
        find(root, filters={"t": {"bogus": "1"}})


def test_bad_label_only_concerns_whom_it_concerns(make_dataset):
    root = make_dataset(
        [
            "sub-01/sub-01_contrast-face-house_stat-t_statmap.nii.gz",
            "sub-02/sub-02_contrast-a_stat-t_statmap.nii.gz",
        ]
    )
    assert len(find(root, labels={"sub": ("02",)})) == 1
    with pytest.raises(DatasetError, match=r"sub-01_contrast-face-house.*faceMinusHouse"):
        find(root)


def test_where_not_to_look(make_dataset):
    wanted = "sub-01/sub-01_stat-t_statmap.nii.gz"
    others = [
        "derivatives/x/sub-01/sub-01_stat-t_statmap.nii.gz",
        "out/sub-01/sub-01_stat-t_statmap.nii.gz",
        ".git/sub-01_stat-t_statmap.nii.gz",
        "sourcedata/sub-01_stat-t_statmap.nii.gz",
    ]
    root = make_dataset([wanted, *others])
    (root / "link").symlink_to(root / "out")
    assert [one.path for one in find(root, exclude=[root / "out"])] == [root / wanted]


def test_links_keep_their_names(make_dataset, tmp_path):
    root = make_dataset([])
    store = tmp_path / "objects"
    (store / "sub-77").mkdir(parents=True)
    (store / "MD5E-s1.nii.gz").write_text("")
    (store / "sub-77" / "sub-01_contrast-a_stat-z_statmap.nii.gz").write_text("")
    (root / "sub-01").mkdir()
    (root / "sub-01" / "sub-01_contrast-a_stat-t_statmap.nii.gz").symlink_to(store / "MD5E-s1.nii.gz")
    (root / "sub-01" / "func").symlink_to(store / "sub-77")
    (root / "sub-01" / "loop").symlink_to(root)
    statmaps = find(root)
    assert sorted(one.kind for one in statmaps) == ["t", "z"]
    assert all(one.entities["sub"] == "01" and root in one.path.parents for one in statmaps)


def test_content_that_is_not_here(make_dataset):
    root = make_dataset(["sub-02/sub-02_stat-t_statmap.nii.gz"])
    (root / "sub-01").mkdir()
    dangling = root / "sub-01" / "sub-01_stat-t_statmap.nii.gz"
    dangling.symlink_to("../.git/annex/objects/nothing")
    (root / "sub-03").mkdir()
    (root / "sub-03" / "sub-03_stat-t_statmap.nii.gz").write_text("/annex/objects/MD5E-s1.nii.gz\n")
    assert len(find(root)) == 3  # the other subject can still be done
    with pytest.raises(InputError, match=r"sub-01_stat-t.*\(and 1 more\).*datalad get"):
        require_content(find(root))
    with pytest.raises(InputError, match="datalad get"):
        find(root, labels={"sub": ("01",)})


def test_studies(make_dataset):
    table = {"studies.tsv": "study_id\tsample_size\nA\t10\n"}
    maps = [f"study-{label}/study-{label}_space-S_contrast-c_stat-t_statmap.nii.gz" for label in "AB"]
    root = make_dataset({**table, **dict.fromkeys(maps, "")})
    assert [one.entities["study"] for one in find(root, "group")] == ["A", "B"]
    assert len(find(root, "group", labels={"study": ("B",)})) == 1
    assert find(root) == ()


def test_folder_of_studies(make_dataset):
    both = [
        "group/contrast-c_test-Intercept_desc-reml_stat-effect_statmap.nii.gz",
        "group/contrast-c_test-age_desc-reml_stat-effect_statmap.nii.gz",
        "group/contrast-c_desc-reml_stat-dof_statmap.nii.gz",
        "group/contrast-c_test-Intercept_desc-reml_corr-fdr_stat-z_statmap.nii.gz",
        "sub-01/sub-01_contrast-c_stat-effect_statmap.nii.gz",
    ]
    only = ["group/contrast-c_desc-ols_stat-effect_statmap.nii.gz"]
    roots = [make_dataset(both, root="all/study-A"), make_dataset(only, root="all/study-B")]
    datasets = [Dataset(root.name, root) for root in roots]
    statmaps = find_statmaps(datasets, Query("group"))
    assert [(one.kind, dict(one.entities)) for one in statmaps] == [
        ("dof", {"study": "A", "contrast": "c"}),
        ("effect", {"study": "A", "contrast": "c"}),
        ("effect", {"study": "B", "contrast": "c"}),
    ]
    assert "test-Intercept" in statmaps[1].path.name
    # the dataset alone, though its folder is called study-A: its subjects are the rows
    assert [one.entities for one in find_statmaps(datasets[:1], Query("group"))] == [{"sub": "01", "contrast": "c"}]


def test_several_tests_need_a_choice(make_dataset):
    maps = [f"group/test-{test}_desc-ols_stat-effect_statmap.nii.gz" for test in ("age", "sex")]
    dataset = Dataset("study-A", make_dataset(maps, root="study-A"))
    with pytest.raises(DatasetError, match=r"several tests .age, sex."):
        find_statmaps([dataset], Query("group"))
    (one,) = find_statmaps([dataset], Query("group", filters={"effect": {"test": "sex"}}))
    assert "test" not in one.entities


def test_one_file_for_two_kinds(make_dataset):
    root = make_dataset(["sub-01/sub-01_stat-t_statmap.nii.gz"])
    with pytest.raises(UsageError, match="as effect and as t"):
        find(root, filters={"effect": {"stat": "*"}})


def test_database_is_refreshed(make_dataset, tmp_path):
    root = make_dataset(["sub-01/sub-01_stat-t_statmap.nii.gz"])
    settings = {"database_dir": tmp_path / "db"}
    assert find(root, **settings) == find(root, **settings) == find(root)
    (database,) = (tmp_path / "db").glob("*/*/layout_index.sqlite")
    before = database.stat().st_mtime_ns
    find(root, **settings)
    assert database.stat().st_mtime_ns == before
    (root / "sub-02").mkdir()
    (root / "sub-02" / "sub-02_stat-t_statmap.nii.gz").write_text("")
    assert len(find(root, **settings)) == 2
    assert len(find(root, labels={"sub": ("02",)}, **settings)) == 1
    other = make_dataset(["sub-05/sub-05_stat-t_statmap.nii.gz"], root="other")
    assert names(find(other, **settings)) == ["sub-05_stat-t_statmap.nii.gz"]
    assert not list((tmp_path / "db").glob("*/.*"))
    assert len(list((tmp_path / "db").glob("*/*/layout_index.sqlite"))) == 3


SHAPES = (
    "sub-01/sub-01_task-x_contrast-a_stat-effect_statmap.nii.gz",  # nilearn
    "node-runLevel/sub-02/sub-02_run-1_contrast-a_stat-t_statmap.nii.gz",  # FitLins
    "sub-03/func/sub-03_task-a_feature-f_foo-1_taskcontrast-b_stat-effect_statmap.nii.gz",  # HALFpipe
    "sub-04/ses-2/func/contrast-a_stat-t_statmap.nii",  # its folders say the rest
    "sub-05/func/sub-05_acq-a_ce-b_trc-c_rec-d_dir-LR_mod-e_run-01_echo-1_space-S_res-2_stat-z_statmap.nii.gz",
    "sub-06/subject-06_session-1_acquisition-a_direction-AP_reconstruction-r_stat-p_statmap.nii.gz",  # keys in words
    "sub-07/sub-07_contrast-a+b_stat-t_statmap.nii.gz",
    "group/space-S_contrast-a_desc-ols_stat-effect_statmap.nii.gz",
    "study-smith/study-smith_contrast-a_test-mean_desc-reml_stat-effect_statmap.nii.gz",
)


@pytest.mark.parametrize("level", ["participant", "group"])
def test_a_database_gives_what_the_walk_gives(make_dataset, tmp_path, level):
    root = make_dataset(SHAPES)
    walked = find(root, level)
    assert len(walked) == {"participant": 7, "group": 6}[level]  # without the node of runs
    made, kept = (find(root, level, database_dir=tmp_path / "db") for _ in range(2))
    assert made == kept == walked
    assert [list(one.entities.items()) for one in kept] == [list(one.entities.items()) for one in walked]


def test_a_database_keeps_why_a_name_is_none(make_dataset, tmp_path):
    root = make_dataset(["sub-08/sub-08_desc-a-b_stat-t_statmap.nii.gz"])
    for _ in range(2):
        with pytest.raises(DatasetError, match=r'rename to "desc-aMinusB"'):
            find(root, database_dir=tmp_path / "db")


def test_no_pybids_without_a_database(make_dataset, run_python):
    """Importing it takes longer than most datasets."""
    root = make_dataset(["sub-01/sub-01_stat-t_statmap.nii.gz"])
    code = (
        "import sys; from pathlib import Path; from ibma_app.core.statmap import Dataset; "
        "from ibma_app.dataset.query import Query, find_statmaps; "
        "found = find_statmaps([Dataset('data', Path(sys.argv[1]))], Query('participant')); "
        "print(len(found), 'bids' in sys.modules)"
    )
    ran = run_python("-c", code, root)
    assert ran.stdout.split() == ["1", "False"], ran.stderr


def test_database_is_of_one_selection(make_dataset, tmp_path):
    """What the walk looks for is part of what a database is known by."""
    root = make_dataset(["sub-01/sub-01_stat-t_statmap.nii.gz", "sub-01/sub-01_stat-z_statmap.img"])
    for extension, found in (([".nii.gz"], 1), ([".img"], 1), ([".img", ".nii.gz"], 2)):
        filters = {kind: {"extension": extension} for kind in ("t", "z")}
        assert len(find(root, database_dir=tmp_path / "db", filters=filters)) == found


def test_database_of_the_folders_own_second(make_dataset, tmp_path):
    """Where times are whole seconds, a file may come without its folder's time changing."""
    root = make_dataset(["sub-01/sub-01_stat-t_statmap.nii.gz"])
    now = int(time.time())

    def tick():
        for folder in (root, root / "sub-01"):
            os.utime(folder, (now, now))

    tick()
    assert len(find(root, database_dir=tmp_path / "db")) == 1
    (root / "sub-01" / "sub-01_stat-z_statmap.nii.gz").write_text("")
    tick()
    assert len(find(root, database_dir=tmp_path / "db")) == 2


def test_database_that_is_damaged(make_dataset, tmp_path):
    root = make_dataset(["sub-01/sub-01_stat-t_statmap.nii.gz"])
    find(root, database_dir=tmp_path / "db")
    (database,) = (tmp_path / "db").glob("*/*/layout_index.sqlite")
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(OutputError, match="--bids-database-dir"):
        find(root, database_dir=tmp_path / "db")


def test_a_link_that_leads_nowhere_hides_no_map(make_dataset):
    root = make_dataset([f"sub-{n:02d}/sub-{n:02d}_stat-t_statmap.nii.gz" for n in range(1, 9)])
    (root / "round").symlink_to("round")
    (root / "sub-04" / "gone").symlink_to("nowhere")
    assert len(find(root)) == 8


def test_database_is_a_pybids_layout(make_dataset, tmp_path):
    from bids.layout import BIDSLayout

    root = make_dataset(["sub-01/sub-01_contrast-a_stat-t_statmap.nii.gz"])
    find(root, database_dir=tmp_path / "db")
    (database,) = (tmp_path / "db").glob("*/*/layout_index.sqlite")
    layout = BIDSLayout(str(root), validate=False, database_path=database.parent)
    assert len(layout.get(subject="01", contrast="a", suffix="statmap")) == 1


def test_nothing_is_explained(make_dataset):
    root = make_dataset(
        [f"sub-{n:02d}/sub-{n:02d}_contrast-a_stat-effect_statmap.nii.gz" for n in range(1, 31)]
        + ["sub-01/sub-01_mask.nii.gz"]
    )
    query = Query("participant", labels={"sub": ("01",), "contrast": ("b",)})
    datasets = [Dataset("data", root)]
    assert find_statmaps(datasets, query) == ()
    text = explain_nothing(datasets, query)
    assert "31 images" in text
    assert '30 with suffix "statmap" (there are: mask, statmap)' in text
    assert "1 with sub-01 (there are: 01, 02" in text
    assert "... (30 in all)" in text
    assert "0 with contrast-b (there are: a)" in text


def test_filter_file(tmp_path):
    path = tmp_path / "filter.json"
    path.write_text(json.dumps({"effect": {"subject": "sub-01", "run": [1, None], "desc": None, "res": "*"}}))
    assert read_filter_file(path) == {"effect": {"sub": "01", "run": ["1", None], "desc": None, "res": "*"}}
    path.write_text('{"bald": {}}')
    with pytest.raises(UsageError, match="effect, variance, t, z, p, dof"):
        read_filter_file(path)
    path.write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        read_filter_file(path)
    with pytest.raises(InputError, match="missing"):
        read_filter_file(tmp_path / "missing.json")


def test_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("sub-01\n02\n\n")
    (tmp_path / "participants.tsv").write_text("age\tparticipant_id\n3\tsub-07\n")
    values = ["sub-05", "list.txt", "participants.tsv", "05"]
    assert read_labels(values, "subject") == ("05", "01", "02", "07")
    assert read_labels(["Incongr>Cong", "IniFF"], "contrast") == ("incongrGtCong", "IniFF")
    with pytest.raises(InputError, match=r"gone\.txt"):
        read_labels(["gone.txt"], "sub")
    with pytest.raises(UsageError, match="not a sub label"):
        read_labels(["a b"], "sub")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_is_passed_over(make_dataset):
    root = make_dataset(["sub-01/sub-01_stat-t_statmap.nii.gz", "sub-02/sub-02_stat-t_statmap.nii.gz"])
    (root / "sub-02").chmod(0)
    assert len(find(root)) == 1


def test_real_dataset(shared):
    statmaps = find(shared / "realdata" / "haxby" / "derivatives_25mm", labels={"contrast": ("faceGtHouse",)})
    runs = [one for one in statmaps if "run" in one.entities]  # nilearn's own combined maps lie beside them
    assert len(runs) == 12 * 5
    assert {one.metadata["DegreesOfFreedom"] for one in runs} == {102.0}


def test_kinds_not_named_follow_the_named(make_dataset):
    stem = "study-a/group/study-a_space-MNI152Lin_contrast-c"
    names = [f"{stem}_test-{test}_desc-ols_stat-{kind}_statmap.nii.gz" for test in ("intercept", "age")
             for kind in ("effect", "variance", "z")]  # fmt: skip
    root = make_dataset([*names, f"{stem}_desc-ols_stat-dof_statmap.nii.gz"])
    dataset = Dataset("data", root)
    query = Query(level="group", filters={"effect": {"test": "age"}, "variance": {"test": "age"}})
    found = find_statmaps([dataset], query)
    assert sorted((one.kind, "test-age" in one.path.name) for one in found) == [
        ("dof", False), ("effect", True), ("variance", True), ("z", True)
    ]  # fmt: skip


def test_a_label_is_no_file_of_labels_whatever_lies_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces").write_text("one\ntwo\n")
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "list.txt").write_text("01\n02\n")
    assert read_labels(["faces"], "contrast") == ("faces",)
    assert read_labels(["sub-01"], "sub") == ("01",)
    assert read_labels(["./faces", "list.txt"], "sub") == ("one", "two", "01", "02")
