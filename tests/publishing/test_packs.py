"""Packs for others, made by the command and read by the readers of those others."""

import csv
import json
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.cli import publish_main
from ibma_app.core.errors import ReadWriteError
from ibma_app.images.read import read_image
from ibma_app.publishing.about import About
from ibma_app.publishing.check import write_check
from ibma_app.publishing.neurovault import list_images
from ibma_app.publishing.selected import select
from ibma_app.publishing.upload import plan_upload, send
from ibma_app.workflows.write.saved_results import find_records, read_record

SHAPE = (14, 16, 14)
AFFINE = np.array([[8.0, 0, 0, -52], [0, 8.0, 0, -76], [0, 0, 8.0, -40], [0, 0, 0, 1]])
SPACE = "MNI152NLin2009cAsym"


@pytest.fixture(scope="module")
def output(tmp_path_factory, describe_dataset, write_statmap, cli):
    """Group results of twelve subjects: a mean and a covariate, active in one corner."""
    folder = tmp_path_factory.mktemp("results")
    root = describe_dataset(folder / "maps")
    rng = np.random.default_rng(5)
    active = (np.indices(SHAPE) < 6).all(axis=0)
    rows = ["participant_id\tage"]
    for number in range(1, 13):
        entities = {"sub": f"{number:02}", "task": "faces", "space": SPACE, "contrast": "faces"}
        effect = 2.0 * active + rng.normal(0, 1, SHAPE)
        write_statmap(root, "effect", effect, affine=AFFINE, metadata={"ContrastName": "faces > houses"}, **entities)
        write_statmap(root, "variance", rng.uniform(0.2, 0.6, SHAPE), affine=AFFINE, **entities)
        rows.append(f"sub-{number:02}\t{20 + number}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    tests = ("mean=intercept", "age=center(age)", "any=intercept, center(age)")
    design = ("--formula", "1 + center(age)", "--test", *tests)
    ran = cli(root, folder / "out", "group", *design, "--estimator", "reml", "ols", "--inference", "fdr", "bonferroni",
              "--no-report", "--atlas", "none")  # fmt: skip
    assert ran.code == 0, ran.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def studies(tmp_path_factory, describe_dataset, write_statmap, cli):
    """A meta-analysis of six studies: some give t instead of a variance."""
    folder = tmp_path_factory.mktemp("meta")
    root = describe_dataset(folder / "maps")
    rng = np.random.default_rng(6)
    table = ["study_id\tsample_size"]
    for number in range(1, 7):
        entities = {"study": f"S{number}", "space": SPACE, "contrast": "pain"}
        effect, variance = rng.normal(0.5, 0.5, SHAPE), rng.uniform(0.1, 0.3, SHAPE)
        write_statmap(root, "effect", effect, affine=AFFINE, metadata={"Units": "percent"}, **entities)
        kind, values = ("variance", variance) if number % 2 else ("t", effect / np.sqrt(variance))
        write_statmap(root, kind, values, affine=AFFINE, **entities)
        table.append(f"study-S{number}\t{15 + number}")
    (root / "studies.tsv").write_text("\n".join(table) + "\n")
    ran = cli(root, folder / "out", "group", "--estimator", "dl", "stouffer", "--inference", "fdr", "--no-report",
              "--mask", "data", "--min-coverage", "1")  # fmt: skip
    assert ran.code == 0, ran.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def pack(output, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    assert publish_main([str(output), str(folder), "-q"]) == 0
    return folder


def _named(test):
    return f"task-faces_space-{SPACE}_contrast-faces_{test}"


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_there(pack):
    names = set(_files(pack))
    assert {f"{_named(test)}.nidm.zip" for test in ("mean", "age", "any")} <= names
    assert {"neurovault/collection.json", "neurovault/images.tsv", "nimads/studyset.json"} <= names
    assert {"nimads/annotation.json", "CHECK.md", "about.toml"} <= names
    with (pack / "neurovault/images.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert {row["map_type"] for row in rows} == {"T map", "F map", "Z map", "univariate-beta map", "variance"}
    assert {row["number_of_subjects"] for row in rows} == {"12"}
    assert all((pack / "neurovault" / row["file"]).is_file() for row in rows)
    (statistic,) = [row for row in rows if row["name"] == f"{_named('mean')}_t"]
    assert float(statistic["statistic_parameters"]) == 10.0
    assert statistic["contrast_definition"] == "faces > houses: mean"
    (statistic,) = [row for row in rows if row["map_type"] == "F map"]
    assert float(statistic["statistic_parameters"]) == 10.0
    assert "; 2 and 10 degrees of freedom (ibma-app)." in statistic["description"]
    said = (pack / "CHECK.md").read_text()
    assert f"{_named('any')}: its one number of degrees of freedom (statistic_parameters) is that of F's" in said
    assert said.count("the design matrix (in the NIDM packs) has a row for each participant: ") == 1
    assert said.count("the grand mean map is the effect of the test") == 1
    assert f"- {_named('mean')}, {_named('age')}, {_named('any')}: the grand mean map" in said


def test_what_has_no_direction_is_no_z_map(pack):
    """An F test's z is that of its p: pooled as a Z map, it would be an effect with a sign."""
    with (pack / "neurovault/images.tsv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["name"].startswith(_named("any"))]
    assert [row["map_type"] for row in rows] == ["F map"]
    (study,) = json.loads((pack / "nimads/studyset.json").read_text())["studies"]
    images = {one["id"]: [image["value_type"] for image in one["images"]] for one in study["analyses"]}
    assert images[_named("any")] == []
    assert sorted(images[_named("mean")]) == ["beta", "t", "varcope", "z"]
    assert f"{_named('any')}: an F test has no direction" in (pack / "CHECK.md").read_text()


def test_dof_that_differ_and_several_maps_of_one_participant_are_said(output, tmp_path):
    """Maps of an output of independent subjects, told to be of six: with dof that differ from voxel to voxel."""
    (record,) = find_records(output, "group").values()
    results = read_record(record, output).results
    rows = [replace(row, unit_label=f"{number // 2}") for number, row in enumerate(results.analysis.observations)]
    results = replace(results, analysis=replace(results.analysis, observations=tuple(rows)))
    one = next(one for one in select([results], [], ["any"], ["ols"]))
    values = np.array(read_image(one.path("dof")).data)
    values[values > 0] = np.linspace(4.0, 9.0, np.count_nonzero(values > 0))
    path = tmp_path / "dof.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(np.float32), one.results.grid.affine), path)
    files = [file if file.kind != "dof" else replace(file, path=path) for file in one.estimator.files]
    one = replace(one, estimator=replace(one.estimator, files=tuple(files)))
    images = list_images(About(), [one])
    (image,) = images
    assert image.fields["statistic_parameters"] == pytest.approx(6.5, abs=0.01)
    assert "; 2 and 6.5 degrees of freedom (median; 4 to 9 from voxel to voxel)" in image.fields["description"]
    assert "6 participants, 12 maps" in image.fields["description"]
    said = write_check(About(), [one], images, ["neurovault"])
    assert "has a row for each of 12 maps of 6 participants" in said
    assert "degrees of freedom differ from voxel to voxel; its one number" in said


def test_same_bytes(output, pack, tmp_path):
    assert publish_main([str(output), str(tmp_path), "-q"]) == 0
    assert _files(tmp_path) == _files(pack)


def test_nothing_names_this_machine(pack, output):
    for name, content in _files(pack).items():
        if not name.endswith(".nii.gz"):
            assert str(output.parent).encode() not in content, name


def test_graph_keeps_to_the_ontology(pack, tmp_path, monkeypatch):
    """No class and no attribute that NIDM-Results 1.3.0 does not know, t and F."""
    monkeypatch.chdir(tmp_path)  # the reader leaves a log where it runs
    rdflib = pytest.importorskip("rdflib")
    reader = pytest.importorskip("nidmresults.owl.owl_reader")
    terms = str(Path(reader.__file__).parent / "nidm-results_130.owl")
    ontology = reader.OwlReader(terms)
    for test in ("mean", "any"):
        with zipfile.ZipFile(pack / f"{_named(test)}.nidm.zip") as archive:
            graph = rdflib.Graph().parse(data=archive.read("nidm.ttl").decode(), format="turtle")
        assert not ontology.check_class_names(graph, "ours")
        assert [list(found) for found in ontology.check_attributes(graph, "ours")] == [[], [], []]


@pytest.mark.filterwarnings("ignore")
def test_nidmresults_opens_it(pack, output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = pytest.importorskip("nidmresults.graph")
    info = graph.NIDMResults(nidm_zip=str(pack / f"{_named('mean')}.nidm.zip")).get_info()
    (contrast,) = info["Contrasts"]
    assert contrast["StatisticMap_contrastName"] == "faces > houses: mean"
    assert contrast["ContrastWeightMatrix_value"] == [1.0, 0.0]
    (inference,) = info["Inferences"]
    clusters = list(csv.DictReader(_table(output, "mean"), delimiter="\t"))
    sizes = sorted(int(row["n_voxels"]) for row in clusters if row["n_voxels"] != "n/a")
    assert sorted(cluster["SupraThresholdCluster_clusterSizeInVoxels"] for cluster in inference["Clusters"]) == sizes


def _table(output, test):
    """Return the lines of the cluster table that a pack was made from."""
    (source,) = output.rglob(f"*test-{test}_desc-reml_corr-fdr_clusters.tsv")
    return source.read_text().splitlines()


def test_our_importer_brings_it_back(pack, output, ibma_import, tmp_path):
    ran = ibma_import("nidm", pack / f"{_named('mean')}.nidm.zip", tmp_path / "maps", "--study-label", "mine")
    assert ran.code == 0, ran.stderr
    for kind in ("effect", "variance", "t"):
        (there,) = (tmp_path / "maps").rglob(f"*stat-{kind}_statmap.nii.gz")
        (here,) = output.rglob(f"*test-mean_desc-reml_stat-{kind}_statmap.nii.gz")
        back, sent = nib.load(there), nib.load(here)
        assert np.allclose(
            back.get_fdata(), sent.get_fdata(), rtol=3e-7, atol=1e-9
        )  # a root, squared: single precision
        assert np.array_equal(back.affine, sent.affine)
    (sidecar,) = (tmp_path / "maps").rglob("*stat-t_statmap.json")
    content = json.loads(sidecar.read_text())
    assert (content["SampleSize"], content["DegreesOfFreedom"]) == (12, 10)


def test_peaks_to_the_digit(pack, output):
    studyset = json.loads((pack / "nimads/studyset.json").read_text())
    (study,) = studyset["studies"]
    (analysis,) = [one for one in study["analyses"] if one["id"] == _named("mean")]
    rows = list(csv.DictReader(_table(output, "mean"), delimiter="\t"))
    assert [point["coordinates"] for point in analysis["points"]] == [
        [float(row[axis]) for axis in "xyz"] for row in rows
    ]
    assert [point["values"][0]["value"] for point in analysis["points"]] == [float(row["peak_z"]) for row in rows]
    assert analysis["metadata"]["sample_sizes"] == [12]


def test_a_meta_analysis_can_be_run_again(studies, tmp_path):
    """The numbers of NiMARE's formulas, from the pack's images; its own: test_nimare.py."""
    assert publish_main([str(studies), str(tmp_path), "-q", "--kinds", "nimads"]) == 0
    studyset = json.loads((tmp_path / "nimads/studyset.json").read_text())
    assert len(studyset["studies"]) == 6
    found = {"beta": [], "varcope": [], "z": []}
    for study in studyset["studies"]:
        (analysis,) = study["analyses"]
        for image in analysis["images"]:
            if image["value_type"] in found:
                found[image["value_type"]].append(nib.load(tmp_path / "nimads" / image["filename"]).get_fdata())
    effect, variance, z = (np.array(found[kind]) for kind in ("beta", "varcope", "z"))
    assert effect.shape == variance.shape == z.shape == (6, *SHAPE)
    (ours,) = studies.rglob("*desc-stouffer_stat-z_statmap.nii.gz")
    assert np.allclose(nib.load(ours).get_fdata(), z.sum(0) / np.sqrt(6), atol=2e-5)
    weight = 1 / variance
    mean = (weight * effect).sum(0) / weight.sum(0)
    q = (weight * (effect - mean) ** 2).sum(0)
    tau2 = np.maximum(0, (q - 5) / (weight.sum(0) - (weight**2).sum(0) / weight.sum(0)))
    pooled = (effect / (variance + tau2)).sum(0) / (1 / (variance + tau2)).sum(0)
    (ours,) = studies.rglob("*desc-dl_stat-effect_statmap.nii.gz")
    assert np.allclose(nib.load(ours).get_fdata(), pooled, atol=2e-5)


def test_dry_run_writes_the_blanks_alone(output, tmp_path, capsys):
    assert publish_main([str(output), str(tmp_path / "pack"), "--dry-run", "--upload", "neurovault"]) == 0
    shown, warned = capsys.readouterr()
    lacking = "title, description, task, cognitive_atlas_task, licence, authors"
    assert f"The collection has no {lacking}: fill in {tmp_path / 'pack' / 'about.toml'}" in warned
    assert "give --token-file FILE" in warned
    assert "POST /api/collections/ " in shown
    assert shown.count("POST /api/collections/{collection}/images/") == 9
    assert [path.name for path in (tmp_path / "pack").iterdir()] == ["about.toml"]
    text = (tmp_path / "pack/about.toml").read_text().replace('title = ""', 'title = "Faces"', 1)
    (tmp_path / "pack/about.toml").write_text(text.replace("authors = []", 'authors = ["A. B."]'))
    words = [str(output), str(tmp_path / "pack"), "--about", str(tmp_path / "pack/about.toml"), "-q"]
    assert publish_main([*words, "--kinds", "neurovault", "--test", "mean"]) == 0
    (tmp_path / "token").write_text("secret")
    capsys.readouterr()
    assert publish_main([*words, "--dry-run", "--upload", "neurovault", "--token-file", str(tmp_path / "token")]) == 0
    warned = capsys.readouterr().err  # what was said before is gone, but for the blanks that are left
    assert "no description, task, cognitive_atlas_task, licence: fill in" in warned
    assert "--token-file" not in warned
    collection = json.loads((tmp_path / "pack/neurovault/collection.json").read_text())
    assert (collection["name"], collection["authors"]) == ("Faces", "A. B.")


@pytest.fixture
def vault():
    """A server that speaks NeuroVault's API; it refuses the images called bad."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Authorization"], body))
            refused = b"_age_z" in body and self.server.strict
            self.send_response(400 if refused else 201)
            self.end_headers()
            self.wfile.write(b'{"name": ["too odd"]}' if refused else self.server.answer)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.strict, server.answer = False, b'{"id": 77}'
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server, seen
    server.shutdown()


def test_upload(output, vault, tmp_path, capsys):
    server, seen = vault
    address = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "token").write_text("secret\n")
    words = [str(output), str(tmp_path / "pack"), "-q", "--upload", "neurovault", "--server", address]
    assert publish_main(words) == 66  # no token: nothing is sent
    assert not seen
    words += ["--token-file", str(tmp_path / "token")]
    assert publish_main([*words, "--private", "--test", "mean"]) == 0
    assert capsys.readouterr().out.strip() == f"{address}/collections/77/"
    assert [path for path, _, _ in seen] == ["/api/collections/"] + ["/api/collections/77/images/"] * 4
    assert {token for _, token, _ in seen} == {"Bearer secret"}
    assert b'name="private"\r\n\r\ntrue' in seen[0][2]
    sent = (tmp_path / "pack/neurovault/images" / f"{_named('mean')}_z.nii.gz").read_bytes()
    assert any(sent in body for _, _, body in seen)
    server.strict = True
    assert publish_main(words) == 74
    said = capsys.readouterr().err
    assert "too odd" in said
    assert f"{address}/collections/77/ has what was sent before" in said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"[77]", "its answer is no JSON object"),
        (b"{" * 5000, "property name"),
        (b" " * (2**20 + 1), "its answer is longer than NeuroVault's are"),
        (b'{"id": "../../77"}', "did not say its number"),
        (b'{"id": true}', "did not say its number"),
        (b"\xff", "Expecting value"),
    ],
)
def test_what_a_server_answers_is_not_trusted(vault, answer, said):
    server, seen = vault
    server.answer = answer
    planned = plan_upload({"name": "x"}, iter(()), private=True)
    with pytest.raises(ReadWriteError, match=said):
        send(planned, "secret", f"http://127.0.0.1:{server.server_port}")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--test", "meen"], 64, "there is no 'meen'. Did you mean mean?"),
        (["--analysis", "x"], 64, "There are: task-faces"),
        (["--kinds", "nidm", "--upload", "neurovault"], 64, "add neurovault to --kinds"),
        (["--about", "no.toml"], 66, "no.toml cannot be read"),
    ],
)
def test_wrong_words(output, tmp_path, capsys, words, code, said):
    assert publish_main([str(output), str(tmp_path / "pack"), *words]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tytle = 'x'", "there is no tytle. Did you mean title?"),
        ("authors = 'A'", "authors is a list"),
        ("title = 3", "title is a text"),
        ("title =", "not valid TOML"),
    ],
)
def test_wrong_about(output, tmp_path, capsys, text, said):
    (tmp_path / "about.toml").write_text(text)
    assert publish_main([str(output), str(tmp_path / "pack"), "--about", str(tmp_path / "about.toml")]) == 64
    assert said in capsys.readouterr().err


def test_nothing_to_publish(tmp_path, capsys):
    assert publish_main([str(tmp_path / "none"), str(tmp_path / "pack")]) == 66
    (tmp_path / "empty").mkdir()
    assert publish_main([str(tmp_path / "empty"), str(tmp_path / "pack")]) == 18
    assert "Run ibma-app BIDS_DIR" in capsys.readouterr().err
