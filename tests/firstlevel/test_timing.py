"""When volumes were acquired: TR of sidecar and header, start time and where it is from."""

import numpy as np
import pytest

from ibma_app.core.errors import DataError
from ibma_app.firstlevel.records import RunSettings
from ibma_app.firstlevel.timing import read_timing

SETTINGS = RunSettings()


@pytest.mark.parametrize(
    ("metadata", "settings", "start", "source"),
    [
        ({"StartTime": 0.97, "SliceTimingCorrected": True}, SETTINGS, 0.97, "StartTime of the BOLD's sidecar"),
        ({"SliceTimingCorrected": True}, SETTINGS, 1.0, "half a TR: SliceTimingCorrected without StartTime"),
        ({"SliceTimingCorrected": False}, SETTINGS, 0.0, "0: the sidecar states neither"),
        ({"StartTime": 0.97}, RunSettings(start_time=0.5), 0.5, "the setting start_time"),
    ],
)
def test_start_time(metadata, settings, start, source):
    timing, notes = read_timing({"RepetitionTime": 2.0, **metadata}, 2.0, 100, settings, "bold.nii")
    assert timing.start_time == start
    assert timing.source.startswith(source)
    np.testing.assert_allclose(timing.frame_times, start + 2.0 * np.arange(100))
    assert bool(notes) == ("half" in source)


def test_dropped_volumes_move_the_first_frame():
    timing, _ = read_timing({"RepetitionTime": 2.0}, 2.0, 10, RunSettings(drop_volumes=3), "bold.nii")
    assert timing.n_volumes == 7
    assert timing.frame_times[0] == 6.0


@pytest.mark.parametrize(
    ("metadata", "header", "tr", "words"),
    [
        ({"RepetitionTime": 2.0}, 1.0, 2.0, "header states no TR"),
        ({}, 2.5, 2.5, "No sidecar states RepetitionTime; 2.5 s"),
        ({"RepetitionTime": "2.0"}, 2.001, 2.0, ""),
    ],
)
def test_repetition_time(metadata, header, tr, words):
    timing, notes = read_timing(metadata, header, 10, SETTINGS, "bold.nii")
    assert timing.repetition_time == tr
    assert words in " ".join(notes)
    assert bool(notes) == bool(words)


@pytest.mark.parametrize(
    ("metadata", "header", "volumes", "words"),
    [
        ({}, 0.0, 10, "no sidecar states RepetitionTime"),
        ({}, None, 10, "no sidecar states RepetitionTime"),
        ({"RepetitionTime": 2000}, 2.0, 10, "RepetitionTime of its sidecar is 2000; it is in seconds"),
        ({"RepetitionTime": 2.0}, 3.0, 10, "2 s in its sidecar and 3 s in the image's header"),
        ({"RepetitionTime": 2.0}, 2.0, 1, "has 1 volume"),
        ({"RepetitionTime": 2.0, "VolumeTiming": [0, 2, 9]}, 2.0, 3, "VolumeTiming"),
        *(({"RepetitionTime": 2.0, "StartTime": far}, 2.0, 10, "in seconds, at most 1000") for far in (1e10, -1e300)),
        ({"RepetitionTime": 2.0, "StartTime": "soon"}, 2.0, 10, "StartTime of its sidecar is 'soon'"),
    ],
)
def test_what_cannot_be_is_refused(metadata, header, volumes, words):
    with pytest.raises(DataError, match=words):
        read_timing(metadata, header, volumes, SETTINGS, "bold.nii")
