"""NIDM-Results packs of several versions, and those that somebody made to do harm."""

import io
import json
import stat
import zipfile

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.study import NATIVE, ImportRequest
from ibma_app.importers import archive
from ibma_app.importers.archive import inside, open_package
from ibma_app.importers.fsl.importer import recognises as recognise_feat
from ibma_app.importers.nidm.importer import read, recognises

AFFINE = np.array([[-2.0, 0, 0, 78], [0, 2, 0, -112], [0, 0, 2, -70], [0, 0, 0, 1]])
NEW = "http://purl.org/nidash/nidm#NIDM_0000"
OLD = "http://www.incf.org/ns/nidash/nidm#"
STATO = "http://purl.obolibrary.org/obo/STATO_0000"
TERMS = {  # name before 1.0 -> number since
    "ContrastEstimation": "001", "ContrastMap": "002", "ContrastStandardErrorMap": "013", "Coordinate": "015",
    "CoordinateSpace": "016", "StatisticMap": "076", "contrastName": "085", "errorDegreesOfFreedom": "093",
    "inCoordinateSpace": "104", "inWorldCoordinateSystem": "105", "softwareVersion": "122", "statisticType": "123",
    "version": "127", "NIDMResults": "027", "numberOfSubjects": "171", "coordinateVector": "086",
    "coordinateVectorInVoxels": "139", "MNICoordinateSystem": "051", "SubjectCoordinateSystem": "077",
}  # fmt: skip
STATISTICS = {"TStatistic": "176", "ZStatistic": "376", "FStatistic": "282", "ContrastWeights": "323"}


def turtle(version="1.3.0", *, contrasts=("pain > rest",), kinds=("T",), space="MNICoordinateSystem", groups=(21,),
           peaks=(), location="{}", dof="20.0"):  # fmt: skip
    """Write the graph of a pack as the exporters of that version do."""
    new = version >= "1.0"

    def term(name):
        if name in STATISTICS:
            return f"<{STATO}{STATISTICS[name]}>" if new else f"<{OLD}{name}>"
        return f"<{NEW}{TERMS[name]}>" if new else f"<{OLD}{name}>"

    lines = [
        "@prefix prov: <http://www.w3.org/ns/prov#> .", "@prefix x: <http://iri.nidash.org/> .",
        "@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .", "@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .",
        f'x:pack a prov:Bundle, {term("NIDMResults")} ; {term("version")} "{version}" .',
        f'x:soft a prov:SoftwareAgent, <http://scicrunch.org/resolver/birnlex_2067> ; rdfs:label "FSL" ; '
        f'{term("softwareVersion")} "6.0" .',
        f'x:space a {term("CoordinateSpace")} ; {term("inWorldCoordinateSystem")} {term(space)} .',
        '_:b prov:atTime "01:19:00.883142"^^xsd:dateTime .',  # FSL's exporter writes such dates
    ]  # fmt: skip
    lines += [
        f'x:group{at} a <{STATO}193> ; {term("numberOfSubjects")} "{n}"^^xsd:int .' for at, n in enumerate(groups)
    ]
    for at, name in enumerate(contrasts, 1):
        quoted = json.dumps(name)
        lines.append(f"x:estimation{at} a prov:Activity, {term('ContrastEstimation')} ; prov:used x:weights{at} .")
        lines.append(
            f'x:weights{at} a {term("ContrastWeights")} ; prov:value "[1, -1.]" ; {term("contrastName")} {quoted} .'
        )
        maps = [("ContrastMap", "Contrast", ""), ("ContrastStandardErrorMap", "ContrastStandardError", "")]
        for kind in kinds:
            freedom = dof if kind != "Z" else "inf"
            maps.append(("StatisticMap", f"{kind}Statistic", f'{term("statisticType")} {term(kind + "Statistic")} ; '
                         f'{term("errorDegreesOfFreedom")} "{freedom}"^^xsd:float ; '))  # fmt: skip
        for kind, file, more in maps:
            where = location.format(f"{file}_{at:03d}.nii.gz")
            lines.append(
                f"x:{file}{at} a prov:Entity, {term(kind)} ; {more}{term('contrastName')} {quoted} ; "
                f'{term("inCoordinateSpace")} x:space ; prov:atLocation "{where}"^^xsd:anyURI ; '
                f"prov:wasGeneratedBy x:estimation{at} ."
            )
    for at, (mm, voxel) in enumerate(peaks):
        lines.append(f'x:peak{at} a {term("Coordinate")} ; {term("coordinateVector")} "{list(mm)}" ; '
                     f'{term("coordinateVectorInVoxels")} "{list(voxel)}" .')  # fmt: skip
    return "\n".join(lines)


def image_bytes(values, affine=AFFINE):
    return nib.Nifti1Image(np.asarray(values, dtype=np.float32), affine).to_bytes()


def files(text=None, count=1, statistics=("T",), folder="", **how):
    rng = np.random.default_rng(4)
    found = {f"{folder}nidm.ttl": (turtle(kinds=statistics, **how) if text is None else text).encode()}
    for at in range(1, count + 1):
        effect, error = rng.normal(size=(5, 6, 4)), rng.uniform(0.5, 2, size=(5, 6, 4))
        maps = {
            "Contrast": effect,
            "ContrastStandardError": error,
            **{f"{one}Statistic": effect / error for one in statistics},
        }
        for name, values in maps.items():
            found[f"{folder}{name}_{at:03d}.nii.gz"] = image_bytes(values)
    return found


def write_zip(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, raw in contents.items():
            pack.writestr(name, raw)
    return str(path)


def write_folder(path, contents):
    for name, raw in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(raw)
    return str(path)


@pytest.mark.parametrize(
    ("pack", "names", "dof", "level"),
    [
        ("spm_example", ["passive listening > rest"], 84, "subject"),
        ("fsl_course_av", ["Visual", "Audi"], 41, "subject"),
        ("two_contrasts", ["Generation", "Shad"], 102, None),
    ],
)
def test_t_is_effect_over_standard_error(shared, pack, names, dof, level):
    source = str(shared / "realdata" / "nidm" / f"{pack}.nidm.zip")
    assert recognises(source)
    study = read(source, ImportRequest())
    assert [contrast.name for contrast in study.contrasts] == names
    assert study.level == level
    for contrast in study.contrasts:
        assert contrast.dof == pytest.approx(dof, abs=1e-6)
        assert contrast.sample_size is None
        effect, variance, t = (contrast.maps[kind] for kind in ("effect", "variance", "t"))
        inside_brain = (variance > 0) & (t != 0)
        assert inside_brain.sum() > 5000
        np.testing.assert_allclose(effect[inside_brain] / np.sqrt(variance[inside_brain]), t[inside_brain], atol=1e-5)


def test_what_the_real_packs_say_beside(shared):
    folder = shared / "realdata" / "nidm"
    spm = read(str(folder / "spm_example.nidm.zip"), ImportRequest(for_study=True))
    assert spm.software == "SPM 12.12.0"
    assert spm.contrasts[0].space == "MNI152"
    assert spm.contrasts[0].contrast_weights == {"Sn(1) active*bf(1)": 1, "Sn(1) constant": 0}
    old = read(str(folder / "two_contrasts.nidm.zip"), ImportRequest())
    assert len(old.listed) == 1
    assert "F test" in old.listed[0]  # of the same name as the first T contrast
    assert set(old.contrasts[0].maps) == {"effect", "variance", "t", "z"}


@pytest.mark.parametrize(
    ("pack", "why"), [("fsl_course_av", "coordinate system"), ("two_contrasts", "peaks lie 20 mm")]
)
def test_native_packs_are_recognised(shared, pack, why):
    source = str(shared / "realdata" / "nidm" / f"{pack}.nidm.zip")  # the second claims to be in MNI space
    assert {contrast.space for contrast in read(source, ImportRequest()).contrasts} == {NATIVE}
    with pytest.raises(DataError, match=why):
        read(source, ImportRequest(for_study=True))


@pytest.mark.parametrize("version", ["0.2.0", "1.0.0", "1.1.0", "1.2.0", "1.3.0"])
@pytest.mark.parametrize("folder", ["", "pack.nidm/"])
def test_versions_and_layouts(tmp_path, version, folder):
    how = {"location": "file://./{}" if version < "1.2" else "{}"}
    contents = files(count=2, folder=folder, text=turtle(version, contrasts=("b", "a"), kinds=("T",), **how))
    sources = [write_zip(tmp_path / "p.nidm.zip", contents), write_folder(tmp_path / "open", contents)]
    for source in [*sources, f"{sources[1]}/{folder}nidm.ttl"]:
        assert recognises(source)
        study = read(source, ImportRequest(for_study=True))
        assert [contrast.name for contrast in study.contrasts] == ["b", "a"]  # by file, as the software numbered them
        first = study.contrasts[0]
        assert (first.dof, first.sample_size, first.space, study.software) == (20, 21, "MNI152", "FSL 6.0")
        assert study.level == "group"
        assert list(first.contrast_weights.values()) == [1, -1]
        np.testing.assert_allclose(first.maps["effect"] / np.sqrt(first.maps["variance"]), first.maps["t"], rtol=1e-6)
        assert "standard error" in first.derived["variance"]
        np.testing.assert_array_equal(first.grid.affine, AFFINE)
        assert first.units == "unknown"
        assert first.units_source


def test_two_groups_and_lone_z(tmp_path):
    study = read(write_zip(tmp_path / "p.zip", files(statistics=("Z",), groups=(12, 9))), ImportRequest())
    (contrast,) = study.contrasts
    assert (contrast.sample_size, contrast.columns, contrast.dof) == (21, {"n1": 12, "n2": 9}, None)
    assert list(contrast.maps) == ["effect", "variance", "z"]
    for row, expected in (("[1, 0]", (21, {})), ("[1, 1]", (21, {})), ("[1, -1, 0]", (21, {"n1": 12, "n2": 9}))):
        text = turtle(kinds=("Z",), groups=(12, 9)).replace("[1, -1.]", row)  # what is not a difference has no n1
        (contrast,) = read(write_zip(tmp_path / "p.zip", files(text, statistics=("Z",))), ImportRequest()).contrasts
        assert (contrast.sample_size, contrast.columns) == expected
    (contrast,) = read(write_zip(tmp_path / "p.zip", files(groups=(12, 9, 8))), ImportRequest()).contrasts
    assert (contrast.sample_size, contrast.columns) == (None, {})
    assert "--sample-size" in " ".join(contrast.notes)


def test_f_alone(tmp_path):
    with pytest.raises(DataError, match="F test"):
        read(write_zip(tmp_path / "p.zip", files(statistics=("F",))), ImportRequest())


@pytest.mark.parametrize(("shift", "native"), [(0.5, False), (30.0, True)])
def test_peaks_tell_native_maps(tmp_path, shift, native):
    voxels = [(1, 2, 3), (4, 5, 1), (0, 3, 2)]
    peaks = [(tuple(float(v) for v in (AFFINE @ [*voxel, 1])[:3] + np.array([shift, 0, 0])), voxel) for voxel in voxels]
    source = write_zip(tmp_path / "p.zip", files(text=turtle(peaks=peaks)))
    assert (read(source, ImportRequest()).contrasts[0].space == NATIVE) == native


@pytest.mark.parametrize("text", ["x:a b c d .", "@prefix prov: <http", "<a> <b> [[[[", "\x00\x01", "{}", '<a> <b> "c'])
def test_broken_turtle(tmp_path, text):
    with pytest.raises(DataError, match=r"nidm\.ttl is"):
        read(write_zip(tmp_path / "p.zip", files(text=text)), ImportRequest())


def test_turtle_that_is_no_text_or_no_results(tmp_path):
    contents = files()
    with pytest.raises(DataError, match="UTF-8"):
        read(write_zip(tmp_path / "p.zip", {**contents, "nidm.ttl": b"\xff\xfe\x00"}), ImportRequest())
    with pytest.raises(DataError, match="describes no contrast"):
        read(write_zip(tmp_path / "q.zip", {**contents, "nidm.ttl": b"<a:a> <a:b> <a:c> ."}), ImportRequest())
    with pytest.raises(InputError, match="cannot be read instead"):
        read(write_zip(tmp_path / "r.zip", {"nidm.jsonld": b"{}"}), ImportRequest())
    with pytest.raises(DataError, match="several packs"):
        read(write_zip(tmp_path / "s.zip", {**files(folder="a/"), **files(folder="b/")}), ImportRequest())


def test_nothing_is_loaded_from_a_network(tmp_path, monkeypatch):
    import socket

    def refuse(*_, **__):
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    text = turtle() + "\n<x:y> <http://www.w3.org/2002/07/owl#imports> <http://localhost:9/o.ttl> .\n"
    assert read(write_zip(tmp_path / "p.zip", files(text=text)), ImportRequest()).contrasts
    with pytest.raises(DataError, match="only its own files"):
        read(write_zip(tmp_path / "q.zip", files(location="http://localhost:9/{}")), ImportRequest())


@pytest.mark.parametrize("name", ["../evil.nii", "/etc/evil", "a/../../evil", "C:/evil", "a\\..\\evil"])
def test_names_that_leave_the_archive(tmp_path, name):
    source = tmp_path / "p.zip"
    with zipfile.ZipFile(source, "w") as pack:
        pack.writestr("nidm.ttl", turtle())
        info = zipfile.ZipInfo("x")
        info.filename = name
        pack.writestr(info, b"")
    with pytest.raises(DataError, match="leaves the archive"):
        read(str(source), ImportRequest())
    assert not recognises(str(source))


@pytest.mark.parametrize("where", ["../{}", "file:///etc/{}", "/etc/{}", "file://./../{}", "%2e%2e/{}"])
def test_locations_that_leave_the_package(tmp_path, where):
    source = write_folder(tmp_path / "pack", files(location=where))
    with pytest.raises(DataError, match="leaves the package"):
        read(source, ImportRequest())


def test_refusals_name_the_pack(tmp_path):
    pack = write_zip(tmp_path / "a.nidm.zip", files(location="../{}"))
    with pytest.raises(DataError, match=r"a\.nidm\.zip: The package says"):
        read(pack, ImportRequest())
    folder = write_folder(tmp_path / "unpacked", files())
    (tmp_path / "unpacked" / "Contrast_001.nii.gz").unlink()
    (tmp_path / "unpacked" / "Contrast_001.nii.gz").symlink_to("/etc/passwd")
    assert recognises(folder)  # so that its reader says why, and no other importer is proposed
    with pytest.raises(DataError, match="symbolic link that leaves"):
        read(folder, ImportRequest())
    assert not recognise_feat(folder)


def test_locations():
    assert inside("a", "file://./b.nii.gz") == "a/b.nii.gz"
    assert inside("", "file:///./b%20c.nii") == "b c.nii"
    assert inside("", "maps/b.nii") == "maps/b.nii"


def test_symbolic_links(tmp_path):
    source = tmp_path / "p.zip"
    with zipfile.ZipFile(source, "w") as pack:
        info = zipfile.ZipInfo("Contrast_001.nii.gz")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        pack.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="symbolic link"):
        read(str(source), ImportRequest())
    folder = tmp_path / "pack"
    write_folder(folder, files())
    (tmp_path / "outside.nii.gz").write_bytes((folder / "Contrast_001.nii.gz").read_bytes())
    (folder / "Contrast_001.nii.gz").unlink()
    (folder / "Contrast_001.nii.gz").symlink_to("../outside.nii.gz")
    with pytest.raises(DataError, match="symbolic link"):
        read(str(folder), ImportRequest())


def test_zip_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE", 2**20)
    with pytest.raises(DataError, match="refused"):
        open_package(_path(write_zip(tmp_path / "p.zip", {"a": bytes(2**20 + 1)})))
    monkeypatch.setattr(archive, "MAX_TOTAL", 2**21)
    with pytest.raises(DataError, match="unpack to"):
        open_package(_path(write_zip(tmp_path / "q.zip", {str(n): bytes(2**20) for n in range(3)})))
    monkeypatch.setattr(archive, "MAX_FILES", 10)
    with pytest.raises(DataError, match="files"):
        open_package(_path(write_zip(tmp_path / "r.zip", {str(n): b"" for n in range(11)})))
    with pytest.raises(DataError, match="files"):
        open_package(_path(write_folder(tmp_path / "f", {str(n): b"" for n in range(11)})))


def _path(text):
    from pathlib import Path

    return Path(text)


def test_images_that_unpack_to_too_much_or_promise_it(tmp_path):
    import gzip
    import tracemalloc

    contents = files()
    for length, error, message in ((30000, DataError, "would fill"), (300, ReadWriteError, "truncated")):
        header = nib.Nifti1Header()
        header.set_data_shape((length,) * 3)
        header.set_data_dtype(np.float64)
        raw = bytearray(header.binaryblock)
        raw[344:348] = b"n+1\0"
        source = write_zip(tmp_path / f"{length}.zip", {**contents, "Contrast_001.nii.gz": bytes(raw) + bytes(400)})
        with pytest.raises(error, match=message):  # before memory is claimed
            read(source, ImportRequest())
    source = write_zip(tmp_path / "q.zip", {**contents, "Contrast_001.nii.gz": gzip.compress(bytes(2**26))})
    tracemalloc.start()
    with pytest.raises(ReadWriteError, match="not a NIfTI"):
        read(source, ImportRequest())
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_damaged_packs(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read(str(tmp_path / "none.zip"), ImportRequest())
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ReadWriteError, match="zip archive"):
        read(str(tmp_path / "no.zip"), ImportRequest())
    assert not recognises(str(tmp_path / "no.zip"))
    contents = files()
    source = write_zip(tmp_path / "p.zip", {**contents, "TStatistic_001.nii.gz": b"\x1f\x8b broken"})
    with pytest.raises(ReadWriteError, match="damaged"):
        read(source, ImportRequest())
    source = write_zip(tmp_path / "q.zip", {**contents, "TStatistic_001.nii.gz": image_bytes(np.ones((2, 2, 2)))})
    with pytest.raises(DataError, match="another grid"):
        read(source, ImportRequest())
    del contents["TStatistic_001.nii.gz"]
    lone = read(write_zip(tmp_path / "q.zip", contents), ImportRequest()).contrasts[0]
    assert sorted(lone.maps) == ["effect", "variance"]  # t follows from them
    del contents["ContrastStandardError_001.nii.gz"]
    with pytest.raises(DataError, match="not in the package"):
        read(write_zip(tmp_path / "r.zip", contents), ImportRequest())
    whole = (tmp_path / "r.zip").read_bytes()
    flipped = bytearray(whole)
    at = whole.index(b"nidm.ttl") + 40
    flipped[at : at + 20] = bytes(20)
    (tmp_path / "t.zip").write_bytes(bytes(flipped))
    with pytest.raises((ReadWriteError, DataError)):
        read(str(tmp_path / "t.zip"), ImportRequest())
    assert io.BytesIO(whole).read(2) == b"PK"
