"""What a log says of long work: share, time taken, time left."""

import logging
import re
import time
from threading import Event

import numpy as np
import pytest

from ibma_app.core.system import long_work
from ibma_app.core.system.long_work import describe_progress, tell_progress


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Fitting reml", 40_000, 100_000, 120.0), "Fitting reml: 40 % after 2 min, about 3 min left."),
        (("Resampling mean", 1, 5000, 60.0, "relabellings"),
         "Resampling mean: 0 % (1 of 5,000 relabellings) after 1 min, about 3 d 11 h left."),
        (("Combining", 3, 12, 1800.0, "participants"),
         "Combining: 25 % (3 of 12 participants) after 30 min, about 1 h 30 min left."),
        (("Reading maps", 0, 21, 60.0, "maps"), "Reading maps: 0 % (0 of 21 maps) after 1 min."),
        (("Reading maps", 20, 21, 240.0, "maps"), "Reading maps: 95 % (20 of 21 maps) after 4 min, about 12 s left."),
        (("Fitting ols", 7, 7, 240.0), "Fitting ols: 100 % after 4 min."),
        (("Looking for maps in /data", 12_345, None, 61.0, "folders"),
         "Looking for maps in /data: 12,345 folders after 1 min."),
        (("Nothing", 0, 0, 60.0), "Nothing: 100 % after 1 min."),
    ],
)  # fmt: skip
def test_words_on_how_far_work_is(words, said):
    assert describe_progress(*words) == said


def test_a_line_each_minute_even_when_nothing_moves(caplog, monkeypatch):
    monkeypatch.setattr(long_work, "EVERY", 0.1)
    caplog.set_level(logging.INFO, logger="ibma_app")
    with tell_progress("Fitting", 10) as count:
        count(4)
        time.sleep(0.55)
    lines = [record.getMessage() for record in caplog.records]
    assert 3 <= len(lines) <= 6
    assert set(lines) == {"Fitting: 40 % after 1 s, about 1 s left."}
    caplog.clear()
    time.sleep(0.3)
    assert caplog.records == []  # the work is over


def test_short_work_is_told_nothing_of(caplog):
    caplog.set_level(logging.DEBUG, logger="ibma_app")
    with tell_progress("Fitting", 10) as count:
        count(10)
    assert caplog.records == []
    assert long_work.EVERY == 60.0


def test_work_that_fails_ends_its_lines(monkeypatch, caplog):
    monkeypatch.setattr(long_work, "EVERY", 0.05)
    caplog.set_level(logging.INFO, logger="ibma_app")
    with pytest.raises(ValueError, match="bad"), tell_progress("Fitting", 10):
        raise ValueError("bad")
    time.sleep(0.2)
    assert caplog.records == []


@pytest.fixture
def one_minute_passes(monkeypatch):
    """Let each piece of work have lasted a minute once, so that it logs one line."""

    class Passed(Event):
        waited = False

        def wait(self, timeout=None):
            first, self.waited = not self.waited, True
            return not first and super().wait()

    monkeypatch.setattr(long_work, "Event", Passed)


@pytest.fixture(scope="module")
def maps(tmp_path_factory, describe_dataset, write_statmap):
    root = describe_dataset(tmp_path_factory.mktemp("long") / "maps")
    rng = np.random.default_rng(3)
    for number in range(6):
        names = {"sub": f"{number:02d}", "space": "T1w", "contrast": "ab"}
        write_statmap(root, "effect", rng.normal(0.5, 1, (5, 4, 4)), **names)
        write_statmap(root, "variance", rng.uniform(0.2, 0.6, (5, 4, 4)), **names)
    return root


def told(text: str) -> list[str]:
    """What was worked on, and how many units there are: ``Reading maps of 6 maps``."""
    lines = re.findall(r"^(.*?): (\d+ %|[\d,]+)(?: \([\d,]+ (of [\d,]+ \w+)\)| (folders))? after 1 s", text, re.M)
    return [" ".join(filter(None, (what, of, folders))) for what, _, of, folders in lines]


def test_a_redirected_log_shows_how_far_a_run_is(tmp_path, cli, maps, one_minute_passes):
    words = (maps, tmp_path / "out", "group", "--estimator", "reml", "--inference", "max-stat", "--permutations", "40")
    ran = cli(*words, "--no-report", "--nprocs", "1")
    assert ran.code == 0, ran.stderr
    assert told(ran.stderr) == [
        f"Looking for maps in {maps} folders",
        "Reading sidecars of 12 maps",
        "Reading maps of 6 maps",
        "Fitting reml",
        "Resampling intercept of 40 relabellings",
        "Resampling errors of intercept of 40 relabellings",
    ]
    (log,) = (tmp_path / "out").glob("logs/*/log.txt")
    assert "INFO Resampling intercept: " in log.read_text()
    assert told(cli(*words, "--no-report", "--nprocs", "1", "-q").stderr) == []


def test_participants_pages_and_imports_are_counted(tmp_path, cli, ibma_import, maps, one_minute_passes):
    ran = cli(maps, tmp_path / "out", "participant", "--dof", "40", "--no-report", "--nprocs", "1")
    assert ran.code == 0, ran.stderr
    assert "Combining of 6 participants" in told(ran.stderr)
    ran = cli(maps, tmp_path / "out", "participant", "--reports-only", "--participant-label", "01", "--nprocs", "1")
    assert told(ran.stderr) == ["Drawing of 1 pages"]
    table = tmp_path / "maps.tsv"
    table.write_text(f"study_id\tpath\tkind\tcontrast\nlee\t{min(maps.rglob('*.nii.gz'))}\tz\tpain\n")
    ran = ibma_import("table", table, tmp_path / "imported")
    assert told(ran.stderr) == ["Importing of 1 contrasts"]
