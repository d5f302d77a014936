"""AFNI's datasets: sub-bricks paired by label, scale factors, templates, units stated in the history."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.study import NATIVE, ImportRequest
from ibma_app.importers.afni.header import parse_extension
from ibma_app.importers.afni.importer import IMPORTER, read, recognises


@pytest.fixture(scope="module")
def afni(maker):
    return maker("afni_folder")


def test_the_group_file_comes_out_as_its_labels_say(shared):
    path = shared / "realdata" / "afni" / "saccade.I_C.MNI.nii.gz"
    assert recognises(str(path))
    study = read(str(path), ImportRequest(for_study=True))
    (contrast,) = study.contrasts
    assert (contrast.name, contrast.dof, contrast.space) == ("SetA", 22.0, "MNI152")
    assert contrast.sample_size == 23  # one set, no covariates: dof + 1
    assert contrast.units == "unknown"
    assert contrast.units_source
    data = np.asarray(nib.load(path).dataobj)
    np.testing.assert_array_equal(contrast.maps["effect"], data[..., 0, 0])
    np.testing.assert_array_equal(contrast.maps["t"], data[..., 0, 1])
    np.testing.assert_allclose(contrast.grid.affine, nib.load(path).affine)


@pytest.mark.parametrize("name", ["scaled+tlrc.HEAD", "example4d+orig.BRIK.gz", "scaled+tlrc"])
def test_data_without_statistics_are_refused_with_their_labels(shared, name):
    with pytest.raises(DataError, match="#0"):
        read(str(shared / "realdata" / "afni" / name), ImportRequest())


def test_bricks_are_read_as_nibabel_reads_them(shared):
    from ibma_app.importers.afni.header import affine_of, read_brick, read_head

    for name in ("scaled+tlrc.HEAD", "example4d+orig.HEAD"):  # int16 with a float factor; gzip
        head = shared / "realdata" / "afni" / name
        attributes, image = read_head(head), nib.load(head)
        for index in range(image.shape[3]):
            np.testing.assert_array_equal(read_brick(head, attributes, index), image.get_fdata()[..., index])
        np.testing.assert_allclose(affine_of(head, attributes), image.affine)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_mixed_types_byte_orders_and_factors(afni, tmp_path, order, packed):
    # nibabel refuses sub-bricks of several types, and names of templates that it does not know
    effect, t = afni.volumes(2)
    factor = float(np.abs(effect).max() / 32767)
    bricks = [("vis#0_Coef", None, effect, "i2", factor), ("vis#0_Tstat", (3, 92), t, "f4", 0)]
    head = afni.write_head(tmp_path, "s+tlrc", bricks, order=order, packed=packed)
    for source in (head, tmp_path / "s+tlrc.BRIK", tmp_path / "s+tlrc", tmp_path):
        assert recognises(str(source))
        (contrast,) = read(str(source), ImportRequest(for_study=True)).contrasts
        assert (contrast.name, contrast.dof, contrast.space) == ("vis", 92.0, "Talairach")
        np.testing.assert_allclose(contrast.maps["effect"], effect, atol=factor)  # half a step of int16 and rounding
        np.testing.assert_array_equal(contrast.maps["t"], t)
    np.testing.assert_allclose(contrast.grid.affine @ [0, 0, 0, 1], [6, 8, -4, 1])  # DICOM axes are LPS+


def test_older_headers_without_a_matrix(afni, tmp_path):
    effect, t = afni.volumes(2)
    head = afni.write_head(tmp_path, "s+tlrc", [("a_mean", None, effect, "f4", 0), ("a_Tstat", (3, 9), t, "f4", 0)],
                      IJK_TO_DICOM_REAL=None)  # fmt: skip
    (contrast,) = read(str(head), ImportRequest()).contrasts
    np.testing.assert_allclose(contrast.grid.affine, [[-4, 0, 0, 6], [0, -4, 0, 8], [0, 0, 4, -4], [0, 0, 0, 1]])


def test_pairs_of_all_programs(afni, tmp_path):
    labels = [("SetA-SetB_mean", None), ("SetA-SetB_Zscr", (5,)), ("SetA_mean", None), ("SetA_Tstat", (3, 11)),
              ("SetA_age", None), ("SetA_age_Tstat", (3, 11)), ("pain:b", None), ("pain:t", (3, 13)), ("tau^2", None),
              ("QE:Chisq", (6, 13)), ("pos-neg", None), ("pos-neg t", (3, 20)), ("lonely_Tstat", (3, 7)),
              ("bare_Coef", None), ("Run#1Pol#0_Coef", None), ("tent#0_Coef", None), ("tent#1_Coef", None)]  # fmt: skip
    bricks = [
        (label, aux, value, "f4", 0) for (label, aux), value in zip(labels, afni.volumes(len(labels)), strict=True)
    ]
    study = read(str(afni.write_head(tmp_path, "g+tlrc", bricks)), ImportRequest())
    found = {contrast.name: (sorted(contrast.maps), contrast.dof) for contrast in study.contrasts}
    assert found == {
        "SetA-SetB": (["effect", "z"], None),
        "SetA": (["effect", "t"], 11),
        "SetA_age": (["effect", "t"], 11),
        "pain": (["effect", "t"], 13),
        "pos-neg": (["effect", "t"], 20),
        "lonely": (["t"], 7),
        "bare": (["effect"], None),
        "tent#0": (["effect"], None),
        "tent#1": (["effect"], None),
    }
    assert len(study.listed) == 3  # tau², its chi-squared, the baseline
    by_name = {contrast.name: contrast for contrast in study.contrasts}
    np.testing.assert_array_equal(by_name["pain"].maps["effect"], bricks[6][2])
    np.testing.assert_array_equal(by_name["pos-neg"].maps["t"], bricks[11][2])


def test_dof_of_the_symbols_when_the_numbers_are_missing(afni, tmp_path):
    effect, t = afni.volumes(2)
    bricks = [("a_mean", None, effect, "f4", 0), ("a_Tstat", None, t, "f4", 0)]
    (contrast,) = read(
        str(afni.write_head(tmp_path, "s+tlrc", bricks, BRICK_STATSYM="none;Ttest(17)")), ImportRequest()
    ).contrasts
    assert contrast.dof == 17


def test_two_sub_bricks_of_one_label(afni, tmp_path):
    bricks = [("a_mean", None, afni.volumes(1)[0], "f4", 0)] * 2
    with pytest.raises(DataError, match="Two sub-bricks"):
        read(str(afni.write_head(tmp_path, "s+tlrc", bricks)), ImportRequest())


@pytest.mark.parametrize(("space", "view"), [("ORIG", 0), ("", 0), ("", 1), ("ACPC", 1)])
def test_native_maps_are_refused_for_studies(afni, tmp_path, space, view):
    effect, t = afni.volumes(2)
    head = afni.write_head(tmp_path, "s+orig", [("a_Coef", None, effect, "f4", 0), ("a_Tstat", (3, 9), t, "f4", 0)],
                      space=space, view=view)  # fmt: skip
    assert read(str(head), ImportRequest()).contrasts[0].space == NATIVE
    with pytest.raises(DataError, match="own space"):
        read(str(head), ImportRequest(for_study=True))
    assert read(str(head), ImportRequest(for_study=True, space="MNI152NLin2009cAsym")).contrasts  # the user's word


@pytest.mark.parametrize(
    ("space", "label"),
    [("TT_N27", "Talairach"), ("TLRC", "Talairach"), ("MNI", "MNI152"), ("MNI_N27", "MNIColin27"), ("MNI_ANAT", ""),
     ("MNI_2009c_asym", "MNI152NLin2009cAsym"), ("HaskinsPeds_NL_template1.0", "HaskinsPedsNLtemplate10")],
)  # fmt: skip
def test_templates(afni, tmp_path, space, label):
    head = afni.write_head(tmp_path, "s+tlrc", [("a_Tstat", (3, 9), afni.volumes(1)[0], "f4", 0)], space=space)
    assert read(str(head), ImportRequest(for_study=True)).contrasts[0].space == label


def write_nifti(afni, path, extension, count=2):
    image = nib.Nifti1Image(np.stack(afni.volumes(count), axis=-1)[:, :, :, None, :], np.diag([4.0, 4, 4, 1]))
    if extension is not None:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(4, extension))
    image.to_filename(path)
    return path


def xml(labels="a_mean~a_Tstat", before=""):
    return (
        f'<?xml version=\'1.0\' ?>\n{before}<AFNI_attributes ni_form="ni_group" >\n<AFNI_atr ni_type="String" '
        f'atr_name="BRICK_LABS" >\n "{labels}"\n</AFNI_atr>\n<AFNI_atr ni_type="float" ni_dimen="4" '
        'atr_name="BRICK_STATAUX" >\n 1\n 3\n 1\n 12\n</AFNI_atr>\n</AFNI_attributes>\n'
    ).encode()


def test_nifti_of_five_axes(afni, tmp_path):
    path = write_nifti(afni, tmp_path / "g.nii", xml(labels="x &gt; y_mean~x &gt; y_Tstat"))
    assert recognises(str(path))
    (contrast,) = read(str(path), ImportRequest()).contrasts
    assert (contrast.name, contrast.dof) == ("x > y", 12)
    assert contrast.maps["t"].shape == afni.SHAPE


@pytest.mark.parametrize(
    "before",
    [
        '<!DOCTYPE x [<!ENTITY a "b">]>',
        '<!DOCTYPE x SYSTEM "http://localhost:1/x.dtd">',
        '<!DOCTYPE x [<!ENTITY % e SYSTEM "file:///etc/passwd"> %e;]>',
    ],
)
def test_document_types_and_entities_are_refused(afni, tmp_path, before):
    with pytest.raises(DataError, match="document type"):
        read(str(write_nifti(afni, tmp_path / "g.nii.gz", xml(before=before))), ImportRequest())


def test_broken_extensions(afni, tmp_path):
    with pytest.raises(DataError, match="broken XML"):
        read(str(write_nifti(afni, tmp_path / "g.nii.gz", xml()[:-40])), ImportRequest())
    with pytest.raises(DataError, match="no AFNI header extension"):
        read(str(write_nifti(afni, tmp_path / "h.nii.gz", None)), ImportRequest())
    assert not recognises(str(tmp_path / "h.nii.gz"))
    with pytest.raises(DataError, match="not made of numbers"):
        parse_extension(xml().replace(b" 12\n", b" twelve\n"), "x")


def test_damaged_datasets(afni, tmp_path):
    bricks = [("a_mean", None, afni.volumes(1)[0], "f4", 0), ("a_Tstat", (3, 9), afni.volumes(1)[0], "f4", 0)]
    head = afni.write_head(tmp_path, "s+tlrc", bricks)
    brik = tmp_path / "s+tlrc.BRIK"
    brik.write_bytes(brik.read_bytes()[:-8])
    with pytest.raises(ReadWriteError, match="truncated"):
        read(str(head), ImportRequest()).contrasts[0].maps["t"]
    brik.unlink()
    with pytest.raises(InputError, match="half of a dataset"):
        read(str(head), ImportRequest())
    head.write_text("no attributes")
    with pytest.raises(DataError, match="no AFNI header"):
        read(str(head), ImportRequest())
    head.write_text(afni.attribute("BRICK_LABS", "a_mean"))
    with pytest.raises(DataError, match="DATASET_DIMENSIONS"):
        read(str(head), ImportRequest())
    absurd = {"DATASET_DIMENSIONS": [30000, 30000, 30000], "DATASET_RANK": [3, 1]}
    head.write_text("".join(afni.attribute(name, values) for name, values in absurd.items()))
    with pytest.raises(DataError, match="no statistic is that large"):  # before memory is claimed for it
        read(str(head), ImportRequest())
    with pytest.raises(InputError):
        read(str(tmp_path / "none+tlrc.HEAD"), ImportRequest())
    assert not recognises(str(tmp_path / "none.nii.gz"))
    with pytest.raises(InputError, match="no AFNI dataset"):
        read(str(tmp_path), ImportRequest())


def test_a_truncated_header_is_refused(afni, tmp_path):
    bricks = [("a_mean", None, afni.volumes(1)[0], "f4", 0), ("a_Tstat", (3, 9), afni.volumes(1)[0], "f4", 0)]
    head = afni.write_head(tmp_path, "s+tlrc", bricks)
    text = head.read_text()
    for cut in (text.index("BRICK_FLOAT_FACS") + 40, text.index("a_Tstat") + 3):  # amid numbers, amid labels
        head.write_text(text[:cut])
        with pytest.raises(ReadWriteError, match="truncated"):
            read(str(head), ImportRequest())


def test_several_datasets_in_a_folder(afni, tmp_path):
    for name in ("stats.s1+tlrc", "stats.s1_REML+tlrc"):
        afni.write_head(tmp_path, name, [("a_Tstat", (3, 9), afni.volumes(1)[0], "f4", 0)])
    with pytest.raises(InputError, match=r"name one of stats\.s1"):
        read(str(tmp_path), ImportRequest())
    assert IMPORTER.name == "afni"
    assert not recognises(str(tmp_path))


def test_subjects_of_paired_and_grouped_tests(afni, tmp_path):
    for options, expected in (
        ("-setA a b c", 12), ("-setA a b -setB c d -paired", 12), ("-setA a b -setB c d", None),
        ("-setA a b -covariates c.txt", None),
    ):  # fmt: skip
        history = f"[a@b: now] 3dttest++ {options} -prefix g"
        bricks = [("x_mean", None, afni.volumes(1)[0], "f4", 0), ("x_Tstat", (3, 11), afni.volumes(1)[0], "f4", 0)]
        study = read(str(afni.write_head(tmp_path, "g+tlrc", bricks, history=history)), ImportRequest())
        assert (study.contrasts[0].sample_size, study.level) == (expected, "group")
    assert Path(study.source).name == "g+tlrc.HEAD"
    labels = [f"{name}_{kind}" for name in ("a-b", "a", "b") for kind in ("mean", "Tstat")]  # 3dttest++ tests each, too
    bricks = [(label, (3, 11) if "Tstat" in label else None, afni.volumes(1)[0], "f4", 0) for label in labels]
    history = "[a@b: now] 3dttest++ -setA a b -setB c d -paired -prefix g"
    study = read(str(afni.write_head(tmp_path, "g+tlrc", bricks, history=history)), ImportRequest())
    assert [contrast.sample_size for contrast in study.contrasts] == [12, 12, 12]


def test_a_bucket_of_24_sub_bricks(afni, tmp_path):
    """3dREMLfit with -fout -tout -rout: int16 with factors, big-endian, gzipped; six pairs among them."""
    t, f, r = (3, 92), (4, 3, 90), (7, 1.5, 45)
    labels = [("Full_R^2", r), ("Full_Fstat", f)]
    for base in ("vis#0", "aud#0", "odd#0", "V-A_GLT#0", "sum_GLT#0"):
        short = base.removesuffix("#0")
        labels += [(f"{base}_Coef", None), (f"{base}_Tstat", t), (f"{short}_R^2", r), (f"{short}_Fstat", f)]
    labels += [("last_GLT#0_Coef", None), ("last_GLT#0_Tstat", t)]
    assert len(labels) == 24
    values = afni.volumes(24)
    bricks = [(label, aux, value, "i2", 1e-3) for (label, aux), value in zip(labels, values, strict=True)]
    study = read(str(afni.write_head(tmp_path, "stats_REML+tlrc", bricks, order=">", packed=True)), ImportRequest())
    assert [one.name for one in study.contrasts] == ["vis", "aud", "odd", "V-A", "sum", "last"]
    assert len(study.listed) == 12
    for contrast in study.contrasts:
        at = next(i for i, (label, _) in enumerate(labels) if re.fullmatch(f"{contrast.name}(_GLT)?#0_Coef", label))
        assert contrast.dof == 92
        np.testing.assert_allclose(contrast.maps["effect"], values[at], atol=6e-4)  # half a step of the int16
        np.testing.assert_allclose(contrast.maps["t"], values[at + 1], atol=6e-4)


@pytest.mark.parametrize(
    ("effect", "statistic", "code", "name"),
    [
        ("pos-neg", "pos-neg t", (3, 20), "pos-neg"),  # 3dMVM
        ("pos-neg", "pos-neg Z", (5,), "pos-neg"),  # 3dLME, 3dLMEr
        ("SetA-SetB_mean", "SetA-SetB_Zscr", (5,), "SetA-SetB"),  # 3dttest++ -toz
        ("pos:b", "pos:t", (3, 20), "pos"),  # 3dMEMA
        ("faces:Mean", "faces:t-stat", (3, 20), "faces"),  # 3dANOVA2
        ("f vs h:Contr", "f vs h:t-stat", (3, 20), "f vs h"),
        ("vis[0] Coef", "vis[0] t-st", (3, 20), "vis[0]"),  # 3dDeconvolve of old
        ("vis [0]&Coef", "vis [0]&T-stat", (3, 20), "vis [0]"),
    ],
)
def test_labels_of_other_programs(afni, tmp_path, effect, statistic, code, name):
    one, two = afni.volumes(2)
    head = afni.write_head(tmp_path, "x+tlrc", [(effect, None, one, "f4", 0), (statistic, code, two, "f4", 0)])
    (contrast,) = read(str(head), ImportRequest()).contrasts
    kind = "t" if code[0] == 3 else "z"
    assert (contrast.name, set(contrast.maps), contrast.dof) == (name, {"effect", kind}, 20 if kind == "t" else None)
