"""A table of maps: what it may say, and every way to say it wrong."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.study import NATIVE, ImportRequest
from ibma_app.importers.table.importer import read, recognises


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(2)
    (tmp_path / "maps").mkdir()
    for name in ("b1", "se1", "t1", "b2", "v2", "p3"):
        values = rng.uniform(0.1, 0.9, size=(4, 4, 4)).astype(np.float32)
        nib.Nifti1Image(values, np.diag([4.0, 4, 4, 1])).to_filename(tmp_path / "maps" / f"{name}.nii.gz")
    return tmp_path


def write(
    folder, *rows, header="study_id path kind contrast sample_size dof units age space", name="maps.tsv", between="\t"
):
    path = folder / name
    path.write_text("\n".join(between.join(row.split(" ")) for row in (header, *rows)) + "\n", encoding="utf-8")
    return str(path)


GOOD = (
    "study-one maps/b1.nii.gz effect pain 20 19 percent 31.5 MNI152NLin6Asym",
    "study-one maps/se1.nii.gz SE pain 20 n/a percent 31.5 MNI152NLin6Asym",
    "study-one maps/t1.nii.gz t pain n/a 19 n/a 31.5 MNI152NLin6Asym",
    "two maps/b2.nii.gz cope pain 12 n/a n/a 28 MNI152NLin6Asym",
    "two maps/v2.nii.gz varcope pain 12 n/a n/a 28 MNI152NLin6Asym",
)


def load(folder, name):
    return nib.load(folder / "maps" / f"{name}.nii.gz").get_fdata()


def test_a_table(folder):
    source = write(folder, *GOOD)
    assert recognises(source)
    study = read(source, ImportRequest(for_study=True))
    one, two = study.contrasts
    assert study.level == "group"
    assert (one.entities, one.name, one.sample_size, one.dof) == ({"study": "one"}, "pain", 20, 19)
    assert (one.units, one.space, one.columns) == ("percent", "MNI152NLin6Asym", {"age": 31.5})
    np.testing.assert_allclose(one.maps["effect"], load(folder, "b1"))
    np.testing.assert_allclose(one.maps["variance"], load(folder, "se1") ** 2)
    np.testing.assert_allclose(one.maps["t"], load(folder, "t1"))
    assert "standard error" in one.derived["variance"]
    assert (two.entities, two.units, two.dof) == ({"study": "two"}, "unknown", None)
    assert set(two.maps) == {"effect", "variance"}
    assert len(two.sources) == 2


def test_csv_subjects_and_p(folder):
    rows = ("sub-01 1 maps/p3.nii.gz p faces positive", "02 1 maps/b2.nii.gz beta faces n/a")
    header = "participant_id run path kind contrast tail"
    source = write(folder, *rows, between=",", header=header, name="maps.csv")
    study = read(source, ImportRequest())
    first, second = study.contrasts
    assert study.level == "subject"
    assert (first.entities, first.tail, first.space) == ({"sub": "01", "run": "1"}, "positive", "")
    assert second.tail is None


def test_byte_order_mark_and_blank_lines(folder):
    source = write(folder, *GOOD[:1], "", "\t\t\t\t\t\t\t\t")
    Path(source).write_text(Path(source).read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert recognises(source)
    assert len(read(source, ImportRequest()).contrasts) == 1


def test_headers_that_say_mni(folder):
    image = nib.Nifti1Image(np.ones((4, 4, 4), dtype=np.float32), np.diag([4.0, 4, 4, 1]))
    image.header.set_sform(image.affine, code="mni")
    image.to_filename(folder / "m.nii.gz")
    source = write(folder, "a m.nii.gz z c", header="study_id path kind contrast")
    assert read(source, ImportRequest()).contrasts[0].space == "MNI152"


def test_native_maps(folder):
    source = write(folder, "a maps/b1.nii.gz t c native", header="study_id path kind contrast space")
    assert read(source, ImportRequest()).contrasts[0].space == NATIVE
    with pytest.raises(DataError, match="own space"):
        read(source, ImportRequest(for_study=True))


@pytest.mark.parametrize(
    ("row", "error", "words"),
    [
        ("a maps/none.nii.gz t c 20 19 n/a 1 n/a", InputError, "line 2.*does not exist"),
        ("a maps/b1.nii.gz T-value c 20 19 n/a 1 n/a", DataError, "none of effect, variance"),
        ("a maps/b1.nii.gz t n/a 20 19 n/a 1 n/a", DataError, "no contrast"),
        ("n/a maps/b1.nii.gz t c 20 19 n/a 1 n/a", DataError, "no study_id"),
        ("a maps/b1.nii.gz t c twenty 19 n/a 1 n/a", DataError, "sample_size is 'twenty'"),
        ("a maps/b1.nii.gz t c -3 19 n/a 1 n/a", DataError, "sample_size is '-3'"),
        ("a maps/b1.nii.gz t c inf 19 n/a 1 n/a", DataError, "sample_size is 'inf'"),
        ("a maps/b1.nii.gz t c 0 19 n/a 1 n/a", DataError, "sample_size is '0'"),
        ("a maps/b1.nii.gz t c 20 -4 n/a 1 n/a", DataError, "dof is '-4'"),
        ("a maps/b1.nii.gz t c 20 1e300 n/a 1 n/a", DataError, "dof is '1e300'"),
        ("a maps/v2.nii.gz variance c 20 19 n/a 1 n/a", DataError, "no effect, t, z or p"),
        ("a https://neurovault.org/x.nii.gz t c 20 19 n/a 1 n/a", DataError, "is an address"),
        ("a maps/b1.nii.gz t c 20", DataError, "5 cells under 9 columns"),
        ("a maps.tsv t c 20 19 n/a 1 n/a", ReadWriteError, "line 2"),
    ],
)
def test_wrong_rows(folder, row, error, words):
    with pytest.raises(error, match=words):
        read(write(folder, row), ImportRequest())


def test_rows_that_disagree(folder):
    row = "a maps/b1.nii.gz t c 20 19 percent 1 n/a"
    with pytest.raises(DataError, match="lines 2 and 3 both give the t"):
        read(write(folder, row, row), ImportRequest())
    with pytest.raises(DataError, match="several values of sample_size"):
        read(write(folder, row, "a maps/b2.nii.gz effect c 21 19 percent 1 n/a"), ImportRequest())
    with pytest.raises(DataError, match="several units"):
        read(
            write(folder, "a maps/v2.nii.gz effect c 20 19 percent 1 n/a", "a maps/b2.nii.gz se c 20 19 bold 1 n/a"),
            ImportRequest(),
        )
    nib.Nifti1Image(np.ones((4, 4, 5), dtype=np.float32), np.diag([4.0, 4, 4, 1])).to_filename(folder / "big.nii")
    with pytest.raises(DataError, match="another grid"):
        read(write(folder, row, "a big.nii effect c 20 19 percent 1 n/a"), ImportRequest())
    study = read(write(folder, row, "a maps/b2.nii.gz effect d 20 19 percent 2 n/a"), ImportRequest())
    assert [contrast.columns for contrast in study.contrasts] == [{}, {}]  # one study, two ages: none is its own


@pytest.mark.parametrize(
    ("header", "words"),
    [("study_id file kind contrast", "lacks the column path"), ("path kind contrast", "lacks the column study_id"),
     ("study_id path kind", "lacks the column contrast"), ("study_id path kind contrast path", "two columns"),
     ("study_id path kind contrast", "no rows")],
)  # fmt: skip
def test_wrong_tables(folder, header, words):
    with pytest.raises(DataError, match=words):
        read(write(folder, header=header), ImportRequest())


def test_what_is_no_table(folder):
    with pytest.raises(InputError, match="does not exist"):
        read(str(folder / "none.tsv"), ImportRequest())
    (folder / "empty.tsv").write_text("")
    with pytest.raises(DataError, match="lacks"):
        read(str(folder / "empty.tsv"), ImportRequest())
    (folder / "latin.tsv").write_bytes("study_id\tpath\tkind\tcontrast\nü".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read(str(folder / "latin.tsv"), ImportRequest())
    with pytest.raises(InputError):
        read(str(folder), ImportRequest())
    for name in ("none.tsv", "empty.tsv", "latin.tsv", "maps"):
        assert not recognises(str(folder / name))


def test_the_pain_studies(shared, tmp_path):
    """The 21 studies of realdata, as a user would list them."""
    maps = shared / "realdata" / "pain21" / "maps"
    rows = ["study_id\tpath\tkind\tcontrast\tsample_size"]
    for study, n in (("pain01", 25), ("pain03", 20)):
        for file, kind in (("beta", "effect"), ("se", "se"), ("t", "t")):
            rows.append(f"{study}\t{maps / study.replace('n', 'n_')}_{file}.nii.gz\t{kind}\tpain\t{n}")
    (tmp_path / "pain.tsv").write_text("\n".join(rows))
    study = read(str(tmp_path / "pain.tsv"), ImportRequest(for_study=True))
    assert [contrast.sample_size for contrast in study.contrasts] == [25, 20]
    for contrast in study.contrasts:
        effect, variance, t = (contrast.maps[kind].astype(float) for kind in ("effect", "variance", "t"))
        good = (variance > 0) & np.isfinite(variance) & np.isfinite(t)
        assert good.sum() > 500
        # float32 files: their own rounding; atol for effects near zero
        np.testing.assert_allclose((effect[good] / np.sqrt(variance[good])), t[good], rtol=1e-4, atol=1e-4)


def test_z_beside_an_effect_becomes_t_with_the_dof_of_the_sample(tmp_path, run_python):
    from scipy import stats

    rng = np.random.default_rng(3)
    t = rng.normal(0, 2, size=(6, 6, 6))
    effect = 0.5 * t
    z = np.sign(t) * stats.norm.isf(stats.t.sf(np.abs(t), 14))
    for name, values in (("e", effect), ("z", z)):
        nib.Nifti1Image(values.astype(np.float32), np.diag([4.0, 4, 4, 1])).to_filename(tmp_path / f"{name}.nii.gz")
    rows = "".join(f"a\tc\t{kind}\t{name}.nii.gz\t15\n" for kind, name in (("effect", "e"), ("z", "z")))
    (tmp_path / "maps.tsv").write_text(f"study_id\tcontrast\tkind\tpath\tsample_size\n{rows}")
    words = ["table", str(tmp_path / "maps.tsv"), str(tmp_path / "out"), "--space", "T1w"]
    ran = run_python("-c", f"import sys; from ibma_app.cli import import_main; sys.exit(import_main({words!r}))")
    assert ran.code == 0, ran.stderr
    assert "14 degrees of freedom, of its sample size" in ran.stderr
    (variance,) = (tmp_path / "out").rglob("*_stat-variance_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(variance).get_fdata(), 0.25, rtol=1e-4)
    (written,) = (tmp_path / "out").rglob("*_stat-t_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(written).get_fdata(), t, rtol=1e-4, atol=1e-6)
