"""Inputs made to hang a program, to fill its memory or to pass for something else: each refused by name, at once."""

import json
import os
import re
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SECONDS = 20  # of processor time: a refusal takes less than one


@pytest.fixture
def inputs(
    tmp_path: Path, maker: Any, load_test: Any, ibma_import: Any, cli: Any, describe_dataset: Any, write_statmap: Any
) -> Any:
    made = maker("small_inputs").Inputs
    return made(tmp_path, maker, load_test, ibma_import, cli, describe_dataset, write_statmap)


def peak() -> int:
    """Return the most memory of this process since the last call, in MiB (0 where Linux does not tell)."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return int(found[1]) // 1024 if found else 0


def refused(one: Any, out: Path, *words: str, codes: tuple[int, ...] = (65, 66, 74), seconds: float = SECONDS) -> None:
    """Check that an input is refused by name, soon, and within little memory."""
    peak()
    before, start = peak(), time.process_time()
    ran = one.run(out)
    assert ran.code in codes, ran.stderr
    assert time.process_time() - start < seconds
    assert peak() - before < 300
    assert "internal error" not in ran.stderr
    assert "Traceback" not in ran.stderr
    for word in words:
        assert word in ran.stderr, f"{word!r} is not in: {ran.stderr[-1000:]}"
    assert not list(out.rglob("*_statmap.nii.gz"))


def taken(one: Any, out: Path, seconds: float = SECONDS) -> Any:
    """Check that an input is read all the same, soon."""
    start = time.process_time()
    ran = one.run(out)
    assert ran.code == 0, ran.stderr
    assert time.process_time() - start < seconds
    return ran


IN_PLACE = {  # kind -> exit codes of a pipe in its place
    "spm": (66,), "spm-hdf5": (66,), "fsl-design.con": (74,), "fsl-design.fsf": (74,), "fsl-dof": (74,),
    "afni-head": (66,), "afni-nifti": (66,), "nidm-turtle": (65, 66), "nidm-zip": (66,), "neurovault": (65, 66),
    "table": (66,), "description": (16,), "participants.tsv": (65,), "studies.tsv": (65,), "config": (66,),
    "filter": (66,), "contrasts": (66,), "atlas": (66,),
}  # fmt: skip


@pytest.mark.parametrize("beside", [False, True])
def test_maps_and_designs_that_are_pipes(inputs: Any, tmp_path: Path, *, beside: bool) -> None:
    one = inputs.kinds["sidecar"]()
    maps = sorted(one.target.parents[2].rglob("*_statmap.nii.gz"))
    for path in maps:
        if beside:  # a design of nilearn's that is none says nothing
            os.mkfifo(path.parent / f"{path.name.partition('_space')[0]}_design.tsv")
        else:
            path.unlink()
            os.mkfifo(path)
    if beside:
        taken(one, tmp_path / "out")
    else:
        refused(one, tmp_path / "out", maps[0].name, "pipe", codes=(66,))


@pytest.mark.parametrize("what", ["pipe", "device"])
@pytest.mark.parametrize("kind", IN_PLACE)
def test_pipes_and_devices_are_not_waited_for(inputs: Any, tmp_path: Path, kind: str, what: str) -> None:
    one = inputs.kinds[kind]()
    one.target.unlink()
    if what == "pipe":
        os.mkfifo(one.target)
    else:
        one.target.symlink_to("/dev/zero")
    codes = IN_PLACE[kind]
    refused(one, tmp_path / "out", codes=codes)


def test_a_link_to_a_regular_file_is_one(inputs: Any, tmp_path: Path) -> None:
    for kind in ("spm", "table", "sidecar", "contrasts"):
        here = tmp_path / kind
        here.mkdir()
        inputs.root = here
        one = inputs.kinds[kind]()
        one.target.rename(here / "elsewhere")
        one.target.symlink_to(here / "elsewhere")
        taken(one, here / "out")


@pytest.mark.parametrize("kind", ["fsl-design.con", "fsl-design.mat", "afni-head", "nidm-turtle", "table", "sidecar",
                                  "studies.tsv", "filter", "contrasts", "config", "atlas"])  # fmt: skip
def test_a_hundred_megabytes_of_text(inputs: Any, tmp_path: Path, kind: str) -> None:
    one = inputs.kinds[kind]()
    with one.target.open("a") as file:
        for _ in range(100):
            file.write(("# a b c " * 2**13 + "\n") * 16)
    ran = one.run(tmp_path / "out")
    if kind == "sidecar":  # concerns its map alone
        assert ran.code == 0
        assert f"{one.target}: not valid JSON (it has more than 4 MiB" in ran.stderr
    else:
        assert ran.code in (64, 65, 66, 74), ran.stderr
        assert one.target.name in ran.stderr
        assert "MiB" in ran.stderr


def test_attributes_that_an_expression_would_explore_for_ever(inputs: Any, tmp_path: Path) -> None:
    one = inputs.kinds["afni-head"]()
    raw = one.target.read_text()
    assert taken(one, tmp_path / "valid").code == 0
    for number, text in enumerate((
        raw + "\n" * 2_000_000 + "type",
        raw.replace("\nname = BRICK_LABS", " " * 1_000_000 + "\nname = BRICK_LABS"),
        raw + "\ntype = string-attribute" + "\n" * 1_000_000,
        raw.replace("[a@b: now]", "[" + "@:" * 300_000),
        raw.replace("[a@b: now]", "[a@b: now] {" * 50_000),
        raw.replace("a/b*100", "a/b" + " " * 500_000),
        raw.replace("a/b*100", "100*" + "(" * 500_000),
        raw.replace("pb04.scale", "pb1." * 200_000),
    )):  # fmt: skip
        count = re.search(r"name = HISTORY_NOTE\ncount = (\d+)", text)
        assert count is not None
        one.target.write_text(text)
        start = time.process_time()
        ran = one.run(tmp_path / f"out{number}")
        assert ran.code in (0, 65, 74), ran.stderr[-500:]
        assert time.process_time() - start < SECONDS, number


def test_numbers_of_regressors_without_end(inputs: Any, tmp_path: Path) -> None:
    one = inputs.kinds["fsl-design.fsf"]()
    raw = one.target.read_text()
    for number, key in enumerate(("evs_orig", "evs_real", "basisfnum1", "nharmonics1")):
        text = re.sub(rf"set fmri\({key}\) .*\n", "", raw) + f"set fmri({key}) 1000000000\n"
        one.target.write_text(text)
        refused(one, tmp_path / str(number), "design.fsf", f"{key} is '1000000000'")
    one = inputs.kinds["afni-design"]()
    one.target.write_text(one.target.read_text().replace("1,2,0,1", "1,2,1000000000@0,1"))
    taken(one, tmp_path / "afni")


@pytest.mark.parametrize("key", ["age", "group"])
def test_a_covariate_that_an_expression_would_explore_for_ever(inputs: Any, tmp_path: Path, key: str) -> None:
    one = inputs.kinds["participants.tsv"]()
    lines = one.target.read_text().splitlines()
    cells = [line.split("\t") for line in lines]
    column = cells[0].index(key)
    for row in cells[1:]:
        row[column] = "1-" * 5000 + "!" + row[column]
    one.target.write_text("\n".join("\t".join(row) for row in cells))
    start = time.process_time()
    assert one.run(tmp_path / "out").code in (0, 65)
    assert time.process_time() - start < SECONDS


@pytest.mark.slow
def test_bombs_are_not_unpacked(inputs: Any, tmp_path: Path) -> None:
    """gzip in a map, in a package, and in an AFNI dataset: a GiB of zeros each."""
    stream = zlib.compressobj(9, wbits=31)
    zeros = b"".join(stream.compress(bytes(2**24)) for _ in range(64)) + stream.flush()
    made = inputs.load("importers/nidm/test_nidm.py")
    contents = made.files()
    name = next(one for one in contents if one.endswith(".nii.gz"))
    contents[name] = zeros
    one = inputs.kinds["nidm-zip"]()
    made.write_zip(one.target, contents)
    refused(one, tmp_path / "nidm", "p.nidm.zip", name)
    bare = name.removesuffix(".gz")
    with zipfile.ZipFile(one.target, "w", zipfile.ZIP_DEFLATED) as pack:
        for other, raw in made.files().items():
            if other != name:
                pack.writestr(other, raw.replace(name.encode(), bare.encode()) if other == "nidm.ttl" else raw)
        with pack.open(bare, "w") as member:
            for _ in range(60):
                member.write(bytes(2**24))
    refused(one, tmp_path / "bare", "p.nidm.zip", bare)
    one = inputs.kinds["table"]()
    (tmp_path / "m0.nii.gz").write_bytes(zeros)
    refused(one, tmp_path / "table", "m0.nii.gz")
    one = inputs.kinds["afni-head"]()
    brik = one.target.with_suffix(".BRIK")
    brik.with_name(brik.name + ".gz").write_bytes(zeros)
    brik.unlink()
    peak()
    before = peak()
    assert one.run(tmp_path / "afni").code in (0, 74)
    assert peak() - before < 300


def test_a_list_of_files_without_end(inputs: Any, tmp_path: Path) -> None:
    one = inputs.kinds["nidm-zip"]()
    with zipfile.ZipFile(one.target, "w") as pack:
        for number in range(6000):
            pack.writestr(f"{number}/" + "x" * 200, b"")
    refused(one, tmp_path / "out", "p.nidm.zip", "files")
    raw = bytearray(one.target.read_bytes())
    at = raw.rfind(b"PK\5\6")
    raw[at + 12 : at + 16] = (2**31).to_bytes(4, "little")
    one.target.write_bytes(raw)
    refused(one, tmp_path / "other", "p.nidm.zip", "list of files")


@pytest.mark.parametrize("key", ["DegreesOfFreedom", "SampleSize"])
@pytest.mark.parametrize("value", [0, -12, 1e300])
def test_absurd_sidecars_are_refused_by_file_and_key(inputs: Any, tmp_path: Path, key: str, value: float) -> None:
    one = inputs.kinds["sidecar"]()
    one.target.write_text(json.dumps({key: value, "Units": "percent"}))
    refused(one, tmp_path / "out", str(one.target), key, codes=(65,))


def test_one_subject_with_an_absurd_sidecar_fails_alone(
    tmp_path: Path, cli: Any, describe_dataset: Any, write_statmap: Any
) -> None:
    root = describe_dataset(tmp_path / "data")
    for sub in ("01", "02"):
        for run in ("1", "2"):
            label = {"sub": sub, "task": "x", "run": run, "contrast": "c", "space": "T1w"}
            dof = -4 if sub == "02" else 90
            write_statmap(root, "effect", np.ones((3, 3, 3)) + int(run), metadata={"DegreesOfFreedom": dof}, **label)
            write_statmap(root, "variance", np.ones((3, 3, 3)), metadata={"DegreesOfFreedom": dof}, **label)
    ran = cli(root, tmp_path / "out", "participant", "--no-report")
    assert ran.code == 1, ran.stderr
    assert "sub-02" in ran.stderr.splitlines()[-1]
    assert "DegreesOfFreedom is -4" in ran.stderr
    assert list((tmp_path / "out" / "sub-01").rglob("*stat-effect_statmap.nii.gz"))


@pytest.mark.parametrize("size", ["0", "-12", "1e+300"])
def test_absurd_tables_and_options(inputs: Any, tmp_path: Path, ibma_import: Any, size: str) -> None:
    one = inputs.kinds["studies.tsv"]()
    one.target.write_text(re.sub(r"\t22\t", f"\t{size}\t", one.target.read_text()))
    refused(one, tmp_path / "out", "studies.tsv", "sample_size", size, codes=(65,))
    one = inputs.kinds["table"]()
    ran = ibma_import("table", one.target, tmp_path / "o", f"--sample-size={size}")
    assert (ran.code, "--sample-size" in ran.stderr) == (64, True)


@pytest.mark.parametrize("dof", ["0", "-4", "1e300", "nan"])
def test_absurd_dof_of_the_command_line(inputs: Any, tmp_path: Path, cli: Any, dof: str) -> None:
    one = inputs.kinds["sidecar"]()
    ran = cli(one.target.parents[2], tmp_path / "out", "group", f"--dof={dof}")
    assert (ran.code, "--dof" in ran.stderr) == (64, True)


@pytest.mark.parametrize("text", ["0", "-4", "1e300", "²", "nan", "9" * 5000, "1\0", "many"])
def test_absurd_dof_of_every_importer(inputs: Any, tmp_path: Path, text: str) -> None:
    one = inputs.kinds["fsl-dof"]()
    one.target.write_text(text)
    refused(one, tmp_path / "fsl", str(one.target), codes=(65,))
    one = inputs.kinds["afni-head"]()
    one.target.write_text(re.sub(r"\b92(\.0)?\b", text, one.target.read_text()))
    refused(one, tmp_path / "afni", "s+tlrc.HEAD", codes=(65,))
    one = inputs.kinds["nidm-turtle"]()
    one.target.write_text(one.target.read_text().replace('"20.0"', json.dumps(text)))
    refused(one, tmp_path / "nidm", "pack", "errorDegreesOfFreedom", codes=(65,))
    one = inputs.kinds["neurovault"]()
    facts = json.loads(one.target.read_text())
    for image in facts["results"]:
        image["number_of_subjects"] = text
    one.target.write_text(json.dumps(facts))
    refused(one, tmp_path / "neurovault", "number_of_subjects", codes=(65,))


ODD = {
    "nesting": '{"a":' * 100_000,
    "surrogate": '{"Name": "\\ud800", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}',
    "digits": '{"Name": "x", "n": ' + "9" * 5000 + ', "DatasetType": "derivative"}',
    "NaN": '{"Name": "x", "License": NaN, "Authors": [Infinity], "DatasetType": "derivative"}',
    "objects": '{"Name": [], "License": {}, "Authors": {"a": 1}, "GeneratedBy": {"Name": 3}, "DatasetLinks": [1], '
               '"SourceDatasets": 5, "DatasetType": "derivative"}',
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_descriptions_that_json_or_python_cannot_hold(inputs: Any, tmp_path: Path, kind: str) -> None:
    one = inputs.kinds["description"]()
    one.target.write_text(ODD[kind])
    if kind == "nesting":
        refused(one, tmp_path / "out", str(one.target), "nested", codes=(16,))
    else:
        taken(one, tmp_path / "out")
        written = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
        assert written["GeneratedBy"][0]["Name"] == "ibma-app"


def test_names_that_are_no_text_are_written(inputs: Any, tmp_path: Path, ibma_import: Any) -> None:
    """Names of files need not be UTF-8."""
    folder = tmp_path / os.fsdecode(b"\xff\xfe.feat")
    one = inputs.kinds["fsl-dof"]()
    one.target.parents[1].rename(folder)
    ran = ibma_import("fsl", folder, tmp_path / "out", "--participant-label", "01")
    assert ran.code == 0, ran.stderr
    (sidecar,) = (tmp_path / "out").rglob("*stat-effect_statmap.json")
    assert "%FF%FE.feat" in json.loads(sidecar.read_text())["Sources"][0]


def test_a_cell_beyond_what_csv_takes(inputs: Any, tmp_path: Path) -> None:
    for kind, codes in (("table", (65,)), ("atlas", (65,)), ("studies.tsv", (0, 65))):
        here = tmp_path / kind
        here.mkdir()
        inputs.root = here
        one = inputs.kinds[kind]()
        one.target.write_text(one.target.read_text() + "x" * 200_000 + "\t1\n")
        ran = one.run(here / "out")
        assert ran.code in codes, ran.stderr
        assert not ran.code or one.target.name in ran.stderr


@pytest.mark.parametrize("text", ["²", "9" * 5000])
def test_digits_that_are_no_numbers_of_the_command_line(
    inputs: Any, tmp_path: Path, cli: Any, ibma_import: Any, text: str
) -> None:
    one = inputs.kinds["fsl-dof"]()
    ran = ibma_import("fsl", one.target.parents[1], tmp_path / "out", "--contrast", text, "--participant-label", "01")
    assert (ran.code, "internal" in ran.stderr) == (18, False)
    (tmp_path / "loose").mkdir()
    image = one.target.parent / "zstat²"
    (one.target.parent / "tstat1.nii.gz").rename(tmp_path / "loose" / f"{image.name}.nii.gz")
    ran = ibma_import("fsl", tmp_path / "loose", tmp_path / "out2", "--participant-label", "01")
    assert ran.code == 0, ran.stderr
    root = inputs.dataset(studies=False)
    for option in ("--mem", "--permutations", "--nprocs", "--dof", "--alpha", "--min-extent", "--seed"):
        ran = cli(root, tmp_path / "out3", "group", option, text)
        assert (ran.code, "internal" in ran.stderr) == (64, False), (option, ran.stderr[-300:])
        assert option in ran.stderr or option == "--mem"
