"""NeuroVault collections from a local server that speaks its JSON, and from downloads."""

import json
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from ibma_app.core.errors import DataError, InputError, ReadWriteError
from ibma_app.core.study import ImportRequest
from ibma_app.importers import fetch
from ibma_app.importers.neurovault.images import plain_key, read_image
from ibma_app.importers.neurovault.importer import read, recognises


def maps(seed):
    rng = np.random.default_rng(seed)
    effect, error = rng.normal(size=(5, 6, 4)), rng.uniform(0.5, 2, size=(5, 6, 4))
    return effect, error, effect / error


def fill_pain(vault, studies=2):
    """Two kinds of studies in one collection, as in that of the 21 pain studies."""
    for at in range(1, studies + 1):
        effect, error, t = maps(at)
        more = {"contrast_definition": "pain > rest", "number_of_subjects": 10 + at}
        vault.add("1425", f"pain_{at:02d}_beta", "univariate-beta map", effect, **more)
        vault.add("1425", f"pain_{at:02d}_varcope", "variance", error**2, **more)
        vault.add("1425", f"pain_{at:02d}_t", "T map", t, statistic_parameters=9.0 + at, **more)


@pytest.mark.parametrize("source", ["1425", "https://neurovault.org/collections/1425/", "neurovault.collection:1425"])
def test_a_collection_by_its_number(vault, tmp_path, source):
    fill_pain(vault)
    assert recognises(source)
    study = read(source, ImportRequest(for_study=True, cache=tmp_path))
    assert [contrast.entities["study"] for contrast in study.contrasts] == ["pain 01", "pain 02"]
    assert study.level == "group"
    for at, contrast in enumerate(study.contrasts, 1):
        effect, error, t = maps(at)
        assert (contrast.name, contrast.sample_size, contrast.dof) == ("pain > rest", 10 + at, 9 + at)
        assert (contrast.space, contrast.units, contrast.notes) == ("MNI152", "unknown", ())
        np.testing.assert_allclose(contrast.maps["effect"], effect, rtol=1e-6)
        np.testing.assert_allclose(contrast.maps["variance"], error**2, rtol=1e-6)
        np.testing.assert_allclose(contrast.maps["t"], t, rtol=1e-6)
    assert sum("/images/?" in path for path in vault.asked) == 2  # six images, three a page


def test_contrasts_of_one_study(vault):
    for name in ("faces", "houses"):
        vault.add("7", f"{name} zstat", "Z map", maps(len(name))[0])
    study = read("7", ImportRequest(for_study=True))  # without a cache
    assert {(one.name, one.entities["study"]) for one in study.contrasts} == {
        ("faces", "neurovault7"),
        ("houses", "neurovault7"),
    }
    assert all(set(one.maps) == {"z"} and one.maps["z"].shape == (5, 6, 4) for one in study.contrasts)


def test_the_cache_spares_downloads(vault, tmp_path):
    fill_pain(vault)
    read("1425", ImportRequest(cache=tmp_path))
    vault.asked.clear()
    study = read("1425", ImportRequest(cache=tmp_path))
    assert study.contrasts[0].maps["t"].any()
    assert not any("/media/" in path for path in vault.asked)
    vault.images["1425"][0]["modify_date"] = "2020-01-01T00:00:00Z"  # changed since: fetched anew
    read("1425", ImportRequest(cache=tmp_path))
    assert sum("/media/" in path for path in vault.asked) == 1
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("faults", [[503, 500], [429], ["cut"], [502, "cut", 504]])
def test_passing_faults_are_tried_again(vault, faults):
    fill_pain(vault, 1)
    vault.faults = faults
    assert len(read("1425", ImportRequest()).contrasts) == 1


def test_lasting_faults(vault):
    with pytest.raises(InputError, match=r"404.*Is the number right"):
        read("99", ImportRequest())
    fill_pain(vault, 1)
    vault.faults = [503] * fetch.ATTEMPTS
    with pytest.raises(InputError, match="after 4 attempts: the server answers 503"):
        read("1425", ImportRequest())
    vault.faults = [403]
    with pytest.raises(InputError, match="private"):
        read("1425", ImportRequest())
    vault.images["5"] = []
    with pytest.raises(DataError, match="empty"):
        read("5", ImportRequest())


def test_one_image_that_is_gone(vault):
    fill_pain(vault)
    del vault.files["/media/images/1425/105/pain_02_t.nii"]
    study = read("1425", ImportRequest())
    assert [set(contrast.maps) for contrast in study.contrasts] == [{"effect", "variance", "t"}, {"effect", "variance"}]
    assert "404" in study.listed[0]


def test_answers_that_are_not_those_of_the_api(vault, monkeypatch):
    monkeypatch.setattr(vault, "answer", lambda path: b"<html>")
    with pytest.raises(ReadWriteError, match="JSON"):
        read("1425", ImportRequest())
    monkeypatch.setattr(vault, "answer", lambda path: b'{"detail": "x"}')
    with pytest.raises(DataError, match="no list of images"):
        read("1425", ImportRequest())


def test_no_server(monkeypatch):
    monkeypatch.setattr(fetch, "FIRST_WAIT", 0.0)
    monkeypatch.setenv("IBMA_NEUROVAULT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot be fetched"):
        read("1425", ImportRequest())
    monkeypatch.setenv("IBMA_NEUROVAULT_URL", "ftp://somewhere")
    with pytest.raises(InputError, match="IBMA_NEUROVAULT_URL"):
        read("1425", ImportRequest())


@pytest.mark.parametrize("file", ["http://elsewhere.example/x.nii", "file:///etc/passwd", "ftp://neurovault.org/x.nii"])
def test_files_on_other_servers_are_refused(vault, file):
    vault.add("7", "a", "Z map", maps(1)[0], file=file)
    with pytest.raises(InputError, match="refused"):
        read("7", ImportRequest())


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"not_mni": True}, "not in MNI space"),
        ({"is_thresholded": True}, "thresholded"),
        ({"is_valid": False}, "not valid"),
        ({"map_type": "F map"}, "F map"),
        ({"map_type": '1-P map ("inverted" probability)'}, "1-p"),
        ({"map_type": "ROI/mask"}, "ROI/mask"),
        ({"image_type": "atlas"}, "atlas"),
        ({"image_type": "nidm_results"}, "ibma-import nidm"),
        ({"analysis_level": "single-subject"}, "of a single subject"),
        ({"analysis_level": None, "number_of_subjects": 1}, "of a single subject"),
        ({"analysis_level": "meta-analysis"}, "of a meta-analysis"),
        ({"subject_species": "mus musculus"}, "another species"),
        ({"file": None}, "no file"),
    ],
)
def test_what_is_listed_instead_of_imported(vault, facts, why):
    vault.add("7", "good", "Z map", maps(1)[0])
    vault.add("7", "bad", **{"map_type": "Z map", "values": maps(2)[0], **facts})
    study = read("7", ImportRequest(for_study=True))
    assert [contrast.name for contrast in study.contrasts] == ["good"]
    assert len(study.listed) == 1
    assert why in study.listed[0]


def test_duplicates(vault, image_bytes):
    effect, other, _ = maps(1)
    vault.add("7", "a_z", "Z map", effect)
    vault.add("7", "a copy of it", "Z map", effect)
    vault.add("7", "a_z", "Z map", other)
    vault.add("7", "four", "Z map", image_bytes(np.ones((5, 6, 4, 2))))
    study = read("7", ImportRequest())
    assert [contrast.name for contrast in study.contrasts] == ["a"]
    text = " ".join(study.listed)
    for words in ("is a copy of image 100", "is a second z map", "cannot be read"):
        assert words in text


@pytest.mark.parametrize(("name", "root"), [("pain_se", True), ("pain_varcope", False)])
def test_standard_errors_called_variance(vault, name, root):
    effect, error, t = maps(3)
    vault.add("7", "pain_beta", "univariate-beta map", effect)
    vault.add("7", name, "variance", error)
    vault.add("7", "pain_t", "T map", t)
    (contrast,) = read("7", ImportRequest()).contrasts
    np.testing.assert_allclose(contrast.maps["variance"], error**2, rtol=1e-5)
    assert "standard error" in contrast.derived["variance"]
    assert bool(contrast.notes) != root  # found in the name; or by its values, which is told


def test_single_subjects(vault):
    for number in (1, 2):
        vault.add("9", f"sub-0{number} faces tstat", "T map", maps(number)[2], analysis_level="single-subject",
                  number_of_subjects=1, contrast_definition="faces")  # fmt: skip
    study = read("9", ImportRequest())
    assert study.level == "subject"
    assert [(one.entities, one.sample_size) for one in study.contrasts] == [
        ({"sub": "01"}, None),
        ({"sub": "02"}, None),
    ]
    with pytest.raises(DataError, match="single subject"):
        read("9", ImportRequest(for_study=True))


def test_downloads(vault, tmp_path):
    fill_pain(vault, 1)
    images = vault.images["1425"]
    nilearn = tmp_path / "collection_1425"
    nilearn.mkdir()
    (nilearn / "collection_metadata.json").write_text(json.dumps({"id": 1425, "name": "pain"}))
    for image in images:
        (nilearn / f"image_{image['id']}_metadata.json").write_text(json.dumps(image))
        (nilearn / f"image_{image['id']}.nii.gz").write_bytes(
            vault.files[urlsplit(image["file"]).path]
        )  # plain .nii in it
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "images.json").write_text(json.dumps({"count": 3, "next": None, "results": images}))
    for path, raw in vault.files.items():
        (flat / path.rsplit("/", 1)[1]).write_bytes(raw)
    for source in (nilearn, flat, flat / "images.json"):
        assert recognises(str(source))
        (contrast,) = read(str(source), ImportRequest(for_study=True)).contrasts
        assert contrast.entities == {"study": "neurovault1425"}
        np.testing.assert_allclose(contrast.maps["t"], maps(1)[2], rtol=1e-6)
    assert vault.asked == []
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "images.json"
    alone.write_text(json.dumps(images))  # without the files: they are fetched
    assert read(str(alone), ImportRequest()).contrasts[0].maps["t"].any()
    assert vault.asked


def test_what_is_no_collection(tmp_path, vault):
    (tmp_path / "x.json").write_text("{")
    (tmp_path / "y.json").write_text("{}")
    assert not recognises(str(tmp_path))
    assert not recognises("some words")
    with pytest.raises(InputError, match="no JSON of NeuroVault"):
        read(str(tmp_path), ImportRequest())
    with pytest.raises(DataError, match="no JSON"):
        read(str(tmp_path / "x.json"), ImportRequest())
    with pytest.raises(InputError, match="neither"):
        read("some words", ImportRequest())


@pytest.mark.parametrize(
    ("name", "key"),
    [("pain_01_varcope.nii.gz", "pain 01"), ("pain_01_beta", "pain 01"), ("Fig3B_zstat1.nii.gz", "Fig3B 1"),
     ("Fig3B cope1", "Fig3B 1"), ("faces vs. houses T map", "faces vs. houses"), ("spmT_0001", "0001"),
     ("texture > shape", "texture > shape"), ("beta", "beta")],
)  # fmt: skip
def test_words_for_the_kind_leave_the_name(name, key):
    assert plain_key(name) == key


def test_odd_json():
    assert isinstance(read_image({}), str)
    assert "no file" in read_image({"map_type": "T map", "id": "x", "file": 3})


def test_pages_are_those_that_the_server_names(vault):
    fill_pain(vault, 2)
    whole = vault.answer

    def answer(path):  # numbered pages, whatever limit and offset say
        page = int(parse_qs(urlsplit(path).query).get("page", ["1"])[0])
        if not urlsplit(path).path.startswith("/api/"):
            return whole(path)
        images = vault.images["1425"]
        after = f"{vault.base}/api/collections/1425/images/?page={page + 1}" if 2 * page < len(images) else None
        return json.dumps({"next": after, "results": images[2 * (page - 1) : 2 * page]}).encode()

    vault.answer = answer
    assert len(read("1425", ImportRequest(for_study=True)).contrasts) == 2
    assert sum("/images/?" in path for path in vault.asked) == 3

    vault.answer = lambda path: json.dumps({"next": vault.base, "results": vault.images["1425"]}).encode()
    vault.asked.clear()
    with pytest.raises(DataError):  # a server that names its first page for ever: no file is an image here
        read("1425", ImportRequest(for_study=True))
    assert sum("/images/?" in path for path in vault.asked) == 2


def test_several_collections_in_one_download(vault, tmp_path):
    for collection, seed in (("11", 1), ("12", 2)):
        vault.add(collection, "zstat", "T map", maps(seed)[2], contrast_definition="pain > rest")
        folder = tmp_path / f"collection_{collection}"
        folder.mkdir()
        (image,) = vault.images[collection]
        (folder / "metadata.json").write_text(json.dumps(image))
        (folder / "zstat.nii").write_bytes(vault.files[urlsplit(image["file"]).path])
    study = read(str(tmp_path), ImportRequest(for_study=True))
    assert [contrast.entities["study"] for contrast in study.contrasts] == ["neurovault11", "neurovault12"]
    for contrast, seed in zip(study.contrasts, (1, 2), strict=True):
        np.testing.assert_allclose(contrast.maps["t"], maps(seed)[2], rtol=1e-6)
    for number in (11, 12):  # the folders' names no longer tell which file is whose
        (tmp_path / f"collection_{number}").rename(tmp_path / "ab"[number - 11])
    with pytest.raises(InputError, match=r"Several files could be .*zstat\.nii"):
        read(str(tmp_path), ImportRequest(for_study=True))
    assert vault.asked == []
