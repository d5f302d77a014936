"""When the volumes of a run were acquired, on the clock of its events."""

from collections.abc import Mapping
from typing import Any

from ibma_app.core.errors import DataError
from ibma_app.core.from_files import number_in, show
from ibma_app.firstlevel.records import RunSettings, Timing

SAME_TR = 0.01  # relative: a header keeps single precision, and sidecars are written by hand
UNSET = (0.0, 1.0)  # what headers say that nobody wrote a repetition time into
FARTHEST_START = 1000.0  # s, of the first volume from the start of the events' clock
SHORTEST, LONGEST = 0.05, 60.0  # s: what a repetition time may be


def read_timing(
    metadata: Mapping[str, Any], header_tr: float | None, n_volumes: int, settings: RunSettings, where: str
) -> tuple[Timing, tuple[str, ...]]:
    """Tell when volumes were acquired: StartTime + i x TR.

    The start time is that of the settings; else the sidecar's ``StartTime``
    (fMRIPrep's reference of slice timing); else half a TR where the sidecar
    says ``SliceTimingCorrected``, as slices are moved to the middle of the
    volume; else 0, the start of each volume.

    Parameters
    ----------
    metadata : mapping
        The BOLD's sidecars.
    header_tr : float or None
        s, by the image's header; None: it says none.
    n_volumes : int
        Of the file.
    settings : RunSettings
    where : str
        The BOLD, for messages.

    Returns
    -------
    timing : Timing
    notes : tuple of str

    Raises
    ------
    DataError
        The repetition time is not known or contradicts the header, volumes are
        not acquired at equal intervals, or too few are left.
    """
    if metadata.get("VolumeTiming"):
        raise DataError(
            f"{where}: its sidecar has VolumeTiming: unequal intervals (sparse acquisition) are not modelled."
        )
    repetition_time, notes = _repetition_time(metadata, header_tr, where)
    start, source, note = _start_time(metadata, repetition_time, settings, where)
    left = n_volumes - settings.drop_volumes
    if left < 2:
        raise DataError(
            f"{where} has {n_volumes} volume(s)"
            + (f", {settings.drop_volumes} of which drop_volumes leaves out" if settings.drop_volumes else "")
            + ": a model needs a time series. Give the BOLD of the whole run."
        )
    timing = Timing(repetition_time, left, start, source, settings.drop_volumes)
    return timing, (*notes, *note)


def _repetition_time(metadata: Mapping[str, Any], header_tr: float | None, where: str) -> tuple[float, tuple[str, ...]]:
    """Take the repetition time of the sidecar, and compare the header's."""
    written = metadata.get("RepetitionTime")
    stated = number_in(written)
    header = header_tr if header_tr is not None and header_tr not in UNSET else None
    if written is not None and (stated is None or not SHORTEST <= stated <= LONGEST):
        raise DataError(
            f"{where}: RepetitionTime of its sidecar is {show(written)}; it is in seconds, "
            f"{SHORTEST:g} to {LONGEST:g}. Correct the sidecar."
        )
    if stated is None:
        if header_tr is None or not SHORTEST <= header_tr <= LONGEST:
            raise DataError(
                f"{where}: no sidecar states RepetitionTime, and the image's header has none. Add "
                '{"RepetitionTime": seconds} to its JSON.'
            )
        return header_tr, (f"No sidecar states RepetitionTime; {header_tr:g} s is the image header's.",)
    if header is not None and abs(header - stated) > SAME_TR * stated:
        raise DataError(
            f"{where}: RepetitionTime is {stated:g} s in its sidecar and {header:g} s in the image's header. "
            "Correct the one that is wrong."
        )
    unset = () if header is not None else (f"The image's header states no TR; {stated:g} s is the sidecar's.",)
    return stated, unset


def _start_time(
    metadata: Mapping[str, Any], repetition_time: float, settings: RunSettings, where: str
) -> tuple[float, str, tuple[str, ...]]:
    """Take the start time of the settings or the sidecar, or derive it."""
    if settings.start_time is not None:
        return settings.start_time, "the setting start_time", ()
    if "StartTime" in metadata:
        stated = number_in(metadata["StartTime"])
        if stated is None or abs(stated) > FARTHEST_START:
            raise DataError(
                f"{where}: StartTime of its sidecar is {show(metadata['StartTime'])}; it is in seconds, at most "
                f"{FARTHEST_START:g}. Correct the sidecar."
            )
        return stated, "StartTime of the BOLD's sidecar", ()
    if metadata.get("SliceTimingCorrected") is True:
        half = repetition_time / 2
        text = (
            f"The sidecar says SliceTimingCorrected and no StartTime: volumes are taken at half their TR ({half:g} s)."
        )
        return half, "half a TR: SliceTimingCorrected without StartTime", (text,)
    return 0.0, "0: the sidecar states neither StartTime nor SliceTimingCorrected", ()
