"""``--reports-only``: pages again from what is on disk, the same bytes as the run's own."""

import csv
import gzip
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibma_app.core.anatomy.atlas import AtlasSource, RegionSet, RegionTests
from ibma_app.core.errors import InputError
from ibma_app.core.results import Results
from ibma_app.dataset.output_dir import open_output
from ibma_app.workflows.write.earlier_results import with_earlier
from ibma_app.workflows.write.records_to_json import encode
from ibma_app.workflows.write.saved_results import find_records, read_record

ENTITIES = {"task": "x", "space": "T1w"}  # quicker to draw than MNI
SUBJECTS = ("01", "02", "03", "04", "05", "06")
NAME = "group_task-x_space-T1w_contrast-ab"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, describe_dataset, write_statmap, cli) -> Path:
    """Both levels' output; the folder of the maps is removed afterwards."""
    root = tmp_path_factory.mktemp("reports")
    data = describe_dataset(root / "data")
    rng = np.random.default_rng(5)
    rows = ["participant_id\tage"]
    for sub in SUBJECTS:
        rows.append(f"sub-{sub}\t{20 + 3 * int(sub)}")
        for run in ("1", "2"):
            for contrast in ("ab", "cd"):
                label = {"sub": sub, "run": run, "contrast": contrast, **ENTITIES}
                sidecar = {"DegreesOfFreedom": 90, "Units": "percent", "ContrastName": f"{contrast} <b>"}
                write_statmap(data, "effect", rng.normal(1, 1, (5, 6, 4)), metadata=sidecar, **label)
                write_statmap(data, "variance", rng.uniform(0.2, 0.6, (5, 6, 4)), metadata=sidecar, **label)
    (data / "participants.tsv").write_text("\n".join(rows) + "\n")
    out = root / "out"
    assert (ran := cli(data, out, "participant", "--nprocs", "2")).code == 0, ran.stderr
    group = ("--formula", "1 + age", "--test", "age=age", "mean=intercept", "--estimator", "reml", "stouffer-rfx")
    inference = ("--inference", "fdr", "max-stat", "uncorrected", "--permutations", "64", "--cluster-p", "0.05")
    assert (ran := cli(data, out, "group", *group, *inference, "--nprocs", "1")).code == 0, ran.stderr
    shutil.rmtree(data)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, elsewhere."""
    return Path(shutil.copytree(finished, tmp_path / "moved" / "out"))


def contents(out: Path) -> dict[str, bytes]:
    """All files but the log folders, which carry the time."""
    files = [path for path in out.rglob("*") if path.is_file() and "logs" not in path.relative_to(out).parts]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(files)}


def is_made_again(name: str) -> bool:
    return name.endswith(".html") or name.startswith("figures/") or name in ("README.md", "CITATION.md")


def test_pages_have_the_bytes_of_the_run(finished: Path, out: Path, cli) -> None:
    before = contents(finished)
    made = {name for name in before if is_made_again(name)}
    assert {f"{NAME}.html", f"{NAME[:-2]}cd.html", "sub-01.html", "sub-06.html", "report.html"} <= made
    for name in made:
        (out / name).unlink()
    for level in ("participant", "group"):
        ran = cli(out.parent / "gone", out, level, "--reports-only", "--nprocs", "2")
        assert ran.code == 0, ran.stderr
    after = contents(out)
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == []


def test_records_come_back_whole(finished: Path, out: Path) -> None:
    for level in ("participant", "group"):
        records = find_records(out, level)
        assert len(records) == (12 if level == "participant" else 2)
        for path in records.values():
            document = json.loads(gzip.decompress(path.read_bytes()))
            results = read_record(path, out).results
            assert encode(results, Results, out) == document["Results"]
            assert results.output_dir == out
            assert all(file.path.is_relative_to(out) for one in results.estimators for file in one.files)
            assert str(finished) not in json.dumps(document["Results"])  # the command, beside it, may have it


def test_filters_choose_the_pages(out: Path, cli) -> None:
    for page in out.glob("*.html"):
        page.unlink()
    ran = cli("gone", out, "participant", "--reports-only", "--participant-label", "sub-02", "05")
    assert ran.code == 0, ran.stderr
    assert sorted(page.name for page in out.glob("*.html")) == ["report.html", "sub-02.html", "sub-05.html"]
    ran = cli("gone", out, "group", "--reports-only", "--contrast", "cd")
    assert ran.code == 0, ran.stderr
    assert sorted(page.name for page in out.glob("group_*.html")) == [f"{NAME[:-2]}cd.html"]
    ran = cli("gone", out, "group", "--reports-only", "--contrast", "zz")
    assert ran.code == 18
    assert "contrast- ab, cd" in ran.stderr


def test_dry_run_names_the_pages(out: Path, cli) -> None:
    before = contents(out)
    ran = cli("gone", out, "group", "--reports-only", "--dry-run")
    assert ran.code == 0, ran.stderr
    assert ran.stdout.split() == [str(out / f"{NAME}.html"), str(out / f"{NAME[:-2]}cd.html")]
    assert contents(out) == before


def test_nothing_to_make_again(tmp_path: Path, out: Path, cli) -> None:
    ran = cli(tmp_path, tmp_path / "new", "group", "--reports-only")
    assert ran.code == 18
    assert "holds no finished analysis of the group level" in ran.stderr
    assert not (tmp_path / "new").exists()
    shutil.rmtree(out / "logs")
    assert cli(tmp_path, out, "participant", "--reports-only").code == 18


def test_a_map_that_is_gone_is_named_and_the_others_are_made(out: Path, cli) -> None:
    (lost,) = out.glob("group/*contrast-cd_test-age_desc-reml_stat-z_statmap.nii.gz")
    lost.unlink()
    page = out / f"{NAME}.html"
    page.unlink()
    ran = cli("gone", out, "group", "--reports-only")
    assert ran.code == 1
    assert lost.name in ran.stderr
    assert page.exists()
    assert "run the analysis again" in ran.stderr


def test_the_newest_record_counts(out: Path, cli) -> None:
    (record,) = (path for name, path in find_records(out, "group").items() if name == NAME)
    later = out / "logs" / "99990101T000000Z_group_x-1" / "results" / record.name
    later.parent.mkdir(parents=True)
    document = json.loads(gzip.decompress(record.read_bytes()))
    document["Results"]["notes"] = [{"text": "A note of the later run."}]
    document["Software"]["ibma-app"] = "9.8.7"
    later.write_bytes(gzip.compress(json.dumps(document).encode()))
    assert cli("gone", out, "group", "--reports-only", "--contrast", "ab").code == 0
    text = (out / f"{NAME}.html").read_text()
    assert "A note of the later run." in text
    assert "ibma-app 9.8.7" in text  # the version that computed it


def test_other_estimators_of_an_earlier_run_stay_or_are_named(out: Path) -> None:
    results = read_record(find_records(out, "group")[NAME], out).results
    first, other = results.estimators
    now = replace(results, estimators=(first,))
    with open_output(out) as output:
        same = with_earlier(output, now)
        assert [one.estimator.name for one in same.estimators] == [first.estimator.name, other.estimator.name]
        assert same.estimators[1].files == other.files
        assert f"Results of {other.estimator.name} are those of an earlier run" in same.notes[-1].text
        tested = RegionTests((RegionSet(AtlasSource("mine"), 2),), ())
        assert with_earlier(output, replace(now, regions=tested)).regions == tested
        changed = replace(now, settings={**now.settings, "min_coverage": 0.5})
        apart = with_earlier(output, changed)
        assert apart.estimators == (first,)
        assert f"wrote results of {other.estimator.name} with other maps, another design" in apart.notes[-1].text
        assert (out / apart.notes[-1].text.rpartition(" in ")[2].rstrip(".")).is_dir()
        assert with_earlier(output, results) is results  # nothing else is there
        other.files[0].path.unlink()
        assert with_earlier(output, now) is now  # its maps are gone


DAMAGED = {
    "empty": b"",
    "no gzip": b"no gzip",
    "nothing in it": gzip.compress(b"{}"),
    "of the future": gzip.compress(b'{"Format": 99}'),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_an_input_error(tmp_path: Path, damage: bytes) -> None:
    record = tmp_path / "group_a.json.gz"
    record.write_bytes(damage)
    with pytest.raises(InputError, match=r"group_a\.json\.gz .* Run the analysis again"):
        read_record(record, tmp_path)


def test_options_that_change_nothing_are_named(out: Path, cli) -> None:
    ran = cli("gone", out, "group", "--reports-only", "--alpha", "0.01", "--estimator", "ols", "--nprocs", "1")
    assert ran.code == 0
    assert "change nothing: --estimator, --alpha" in ran.stderr
    assert cli("gone", out, "group", "--reports-only", "--no-report").code == 64


def test_a_run_without_report_can_be_shown_later(tmp_path: Path, finished: Path, cli) -> None:
    out = tmp_path / "out"
    ran = cli(finished, out, "group", "--no-report", "--contrast", "ab", "--estimator", "ols")
    assert ran.code == 0, ran.stderr
    assert not list(out.glob("*.html"))
    assert cli("gone", out, "group", "--reports-only").code == 0
    assert (out / f"{NAME}.html").exists()


@pytest.fixture
def atlases(tmp_path: Path) -> Path:
    """A configuration with two atlases: the sides of the brain, and its slabs along y."""
    shape, affine = (5, 6, 4), np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = -2.0 * (np.array(shape) - 1)
    x, y, _ = np.indices(shape)
    for name, labels in (("sides", np.where(x < 2, 1, 2)), ("slabs", 1 + y)):
        nib.Nifti1Image(labels.astype(np.int16), affine).to_filename(tmp_path / f"{name}_dseg.nii.gz")
    (tmp_path / "sides_dseg.tsv").write_text("index\tname\n1\tleft <side>\n2\tright side\n")
    config = tmp_path / "atlases.toml"
    config.write_text('[atlas.Sides]\nlabels = "sides_dseg.nii.gz"\n\n[atlas.Slabs]\nlabels = "slabs_dseg.nii.gz"\n')
    return config


def tables(out: Path) -> dict[str, tuple[list[dict[str, str]], dict]]:
    """All cluster tables with rows, and their sidecars."""
    found = {}
    for path in sorted(out.glob("group/*_clusters.tsv")):
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        found[path.name] = (rows, json.loads(path.with_suffix(".json").read_text()))
    return found


def test_a_new_atlas_names_regions_without_a_fit(out: Path, cli, atlases: Path) -> None:
    before, maps = tables(out), {name: data for name, data in contents(out).items() if name.endswith(".nii.gz")}
    assert sum(len(rows) for rows, _ in before.values()) > 10
    ran = cli("gone", out, "group", "--reports-only", "--config-file", atlases)
    assert ran.code == 0, ran.stderr
    assert "change nothing" not in ran.stderr
    after = tables(out)
    assert after.keys() == before.keys()
    for name, (rows, sidecar) in after.items():
        assert sidecar["Atlas"] == ["Sides", "Slabs"]
        assert {"region_Sides", "region_Slabs", "composition_Sides", "composition_Slabs"} < sidecar.keys()
        assert "region" not in sidecar
        assert {key: sidecar[key] for key in before[name][1].keys() & sidecar.keys() - {"Atlas"}} == {
            key: before[name][1][key] for key in before[name][1].keys() & sidecar.keys() - {"Atlas"}
        }
        for row, old in zip(rows, before[name][0], strict=True):
            assert {key: value for key, value in row.items() if key in old} == {
                key: value for key, value in old.items() if key not in ("region", "composition")
            }
            assert row["region_Sides"] == ("left <side>" if float(row["x"]) < -2 else "right side")
            assert row["region_Slabs"] == f"label {1 + round((float(row['y']) + 10) / 4)}"
    page = (out / f"{NAME}.html").read_text()
    assert "Region (Sides)" in page
    assert "left &lt;side&gt;" in page
    assert {name: data for name, data in contents(out).items() if name.endswith(".nii.gz")} == maps
    assert "named by the atlases Sides and Slabs" in page
    again = contents(out)
    assert cli("gone", out, "group", "--reports-only").code == 0  # later pages know them, too
    assert contents(out) == again


def without_command(content: bytes) -> bytes:
    """Leave out what pages tell of command, time and duration."""
    return re.sub(rb'<details class="ran">.*?</details>', b"", content, flags=re.DOTALL)


def test_regions_are_those_of_a_run_with_the_atlas(tmp_path: Path, finished: Path, cli, atlases: Path) -> None:
    words = ("group", "--contrast", "ab", "--estimator", "ols", "--inference", "ari", "uncorrected")
    words = (*words, "--cluster-p", "0.05", "--nprocs", "1")
    outs = tmp_path / "with" / "out", tmp_path / "without" / "out"
    assert cli(finished, outs[0], *words, "--config-file", atlases).code == 0
    assert cli(finished, outs[1], *words).code == 0
    assert cli("gone", outs[1], "group", "--reports-only", "--config-file", atlases).code == 0
    first, second = contents(outs[0]), contents(outs[1])
    shown = [name for name in first if name.endswith((".html", "clusters.tsv", "clusters.json", "CITATION.md"))]
    assert len(shown) >= 6
    assert [name for name in shown if without_command(first[name]) != without_command(second[name])] == []
    one = atlases.with_name("one.toml")  # another, and fewer: they replace what is there
    one.write_text('[atlas.Sides]\nlabels = "sides_dseg.nii.gz"\n')
    assert cli("gone", outs[0], "group", "--reports-only", "--config-file", one).code == 0
    assert all(sidecar["Atlas"] == ["Sides"] for _, sidecar in tables(outs[0]).values())
    assert all("region_Sides" not in row for rows, _ in tables(outs[0]).values() for row in rows)
    assert cli("gone", outs[0], "group", "--reports-only", "--atlas", "none").code == 0
    assert cli(finished, outs[1], *words, "--atlas", "none").code == 0
    first, second = contents(outs[0]), contents(outs[1])
    assert [name for name in shown if without_command(first[name]) != without_command(second[name])] == []
    assert all({row["region"], row["composition"]} == {"n/a"} for rows, _ in tables(outs[0]).values() for row in rows)


def test_what_an_atlas_cannot_do_is_said(out: Path, cli, atlases: Path) -> None:
    ran = cli("gone", out, "participant", "--reports-only", "--config-file", atlases)
    assert ran.code == 0
    assert "change nothing: [atlas] of the configuration" in ran.stderr  # there are no cluster tables
    text = atlases.read_text()
    atlases.write_text(text + "\n[estimator.ols]\nerrors = 'sandwich'\n[inference]\ntail_fit = true\n")
    ran = cli("gone", out, "group", "--reports-only", "--config-file", atlases)
    assert "change nothing: [estimator] of the configuration, [inference] of the configuration" in ran.stderr
    atlases.write_text(text.replace("sides_dseg.nii", "nothing_dseg.nii"))
    assert cli("gone", out, "group", "--reports-only", "--config-file", atlases).code == 66
    atlases.write_text(text)
    table = min(out.glob("group/*contrast-ab_*_clusters.tsv"))
    table.write_text("mine\n1\n")
    ran = cli("gone", out, "group", "--reports-only", "--config-file", atlases)
    assert ran.code == 1
    assert f"{table} (with its sidecar and maps) is not as ibma-app wrote it" in ran.stderr
