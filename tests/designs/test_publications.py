"""What to cite for each study."""

import pytest

from ibma_app.core.from_files import doi_in
from ibma_app.core.statmap import Dataset, Observation, Publication, StatMap
from ibma_app.designs.publications import cite_studies
from ibma_app.designs.tables import read_table


@pytest.mark.parametrize(
    ("text", "doi"),
    [
        ("10.1016/j.neuron.2008.09.006", "10.1016/j.neuron.2008.09.006"),
        ("doi: 10.1016/j.neuron.2008.09.006", "10.1016/j.neuron.2008.09.006"),
        ("https://doi.org/10.1038/sdata.2016.44", "10.1038/sdata.2016.44"),
        ("http://dx.doi.org/10.1002/(SICI)1097-0193(1999)8:2/3<109::AID-HBM7>3.0.CO;2-W", None),  # < and > are encoded
        (" 10.18112/openneuro.ds000102.v1.0.0 ", "10.18112/openneuro.ds000102.v1.0.0"),
        ("see paper", None),
        ("10.1", None),
        ("PMID 18817740", None),
        ("https://neurovault.org/collections/1425/", None),
        ("10.1016/" + "x" * 400, None),
        ("", None),
    ],
)
def test_dois(text, doi):
    assert doi_in(text) == doi


def observation(label, tmp_path, metadata=None, description=None, unit="study"):
    dataset = Dataset("d", tmp_path / f"study-{label}" if description else tmp_path, description or {})
    statmap = StatMap(dataset.root / f"study-{label}_stat-z_statmap.nii.gz", "z", dataset, {}, metadata or {})
    return Observation(label, {unit: label}, {"z": statmap})


def test_table_sidecar_dataset(tmp_path):
    (tmp_path / "studies.tsv").write_text(
        "study_id\tsample_size\tdoi\tauthors\n"
        "study-a\t20\thttps://doi.org/10.1000/a\tAda A, Ben B\n"
        "b\t21\tsee paper\tn/a\n"
        "c\t22\tn/a\tn/a\n"
        "d\t22\tn/a\tn/a\n"
    )
    table = read_table(tmp_path / "studies.tsv", "study_id")
    rows = [
        observation("a", tmp_path, {"DOI": "10.1000/other", "Title": "A title."}),
        observation("b", tmp_path),
        observation("c", tmp_path, {"DOI": "doi:10.1000/c", "Authors": ["Cy C", "Di D"]}),
        observation("d", tmp_path, description={"DatasetDOI": "doi:10.18112/openneuro.ds1.v1"}),
        observation("e", tmp_path),  # without a row
        observation("01", tmp_path, {"DOI": "10.1000/x"}, unit="sub"),
    ]
    cited, notes = cite_studies(rows, table)
    assert [one.publication for one in cited] == [
        Publication("Ada A, Ben B", "A title.", "10.1000/a"),
        None,
        Publication("Cy C, Di D", "", "10.1000/c"),
        Publication(doi="10.18112/openneuro.ds1.v1"),
        None,
        None,
    ]
    (note,) = notes
    assert note.about == {"study-b": f"'see paper' in {tmp_path / 'studies.tsv'}, line 3"}
    assert cited[0].publication.text == "Ada A, Ben B. A title. https://doi.org/10.1000/a"
    again, _ = cite_studies(rows, None)
    assert again[0].publication == Publication("", "A title.", "10.1000/other")
