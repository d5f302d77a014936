"""What each inference found, in a sentence: how much, where the largest cluster is, or what it would have taken."""

from collections.abc import Sequence

from ibma_app.core.design import Test
from ibma_app.core.results import Results
from ibma_app.report.cluster_tables import Cluster
from ibma_app.report.html import format_number
from ibma_app.report.numbers import InferenceNumbers, Peak
from ibma_app.report.text.thresholds import Threshold

INTERCEPT = "intercept"


def label_test(test: Test, results: Results) -> str:
    """Call a test by what it asks: the intercept by the contrast whose mean it is."""
    contrast = contrast_of(results)
    if test.name.lower() != INTERCEPT or not contrast:
        return test.name
    return contrast if results.design.one_sample else f"{contrast} ({test.name})"


def contrast_of(results: Results) -> str:
    """The contrast of an analysis: its label, else the one name that all maps have; "" where there is none."""
    if "contrast" in results.analysis.entities:
        return results.analysis.entities["contrast"]
    names = {row.entities.get("contrast", "") for row in results.analysis.observations}
    return names.pop() if len(names) == 1 else ""


def tell_found(row: InferenceNumbers, n_voxels: int, test: Test) -> str:
    """Say how many voxels are significant, in how many clusters, and where the largest is."""
    share = 100 * row.n_significant / n_voxels if n_voxels else 0.0
    text = f"{_voxels(row.n_significant)} of {format_number(n_voxels)} ({share:.2f} %) "
    text += f"{'is' if row.n_significant == 1 else 'are'} significant"
    table = row.clusters
    if table is not None and table.n_clusters and not table.single:
        count = table.n_clusters
        text += f" in {format_number(count)} {'cluster' if count == 1 else 'clusters'}"
    if test.tail == "two-sided" and not test.is_f:
        text += f": {format_number(row.n_positive)} positive, {format_number(row.n_negative)} negative"
    if row.z_threshold is not None:
        text += f"; the smallest significant {'|z|' if test.signed else 'z'} is {format_number(abs(row.z_threshold))}"
    text += "."
    if table is None or not table.largest:
        return text
    if table.single:
        return text + _tell_extreme(table.largest[0])
    return text + _tell_largest(table.largest[0])


def _tell_extreme(first: Cluster) -> str:
    """Name the region with the most extreme z, where each stands for itself."""
    if not first.region or first.peak_z is None:
        return ""
    return f" The most extreme is {first.region}, z = {first.peak_z:.2f}.".replace("= -", "= −")


def _tell_largest(largest: Cluster) -> str:
    region = largest.region
    where = f" lies {region if region.startswith('near') else f'in {region}'}" if region else " has"
    size = f"{' and has' if region else ''} {_voxels(largest.n_voxels)}"
    peak = ""
    if largest.peak_z is not None and largest.place is not None:
        place = ", ".join(format_number(round(mm, 1)).replace("-", "−") for mm in largest.place)
        peak = f", with a peak of z = {largest.peak_z:.2f} at x, y, z = {place} mm".replace("= -", "= −")
    return f" The largest{where}{size}{peak}."


def tell_nothing(row: InferenceNumbers, peaks: Sequence[Peak], threshold: Threshold | None, test: Test) -> str:
    """Say that nothing is significant, how high z came, and what it would have taken."""
    text = f"No voxel is significant by {row.title}."
    tested = peaks[:1] if test.is_f or test.tail == "positive" else peaks[1:] if test.tail == "negative" else peaks
    if not tested:
        return text
    extreme = max(tested, key=lambda peak: abs(peak.z) if test.tail == "two-sided" else peak.z * _sign(test)).z
    if test.tail == "two-sided" and not test.is_f:
        text += f" The largest |z| is {abs(extreme):.2f}"
    else:
        text += f" The {'smallest' if test.tail == 'negative' else 'largest'} z is {extreme:.2f}".replace("-", "−")
    if threshold is not None and threshold.z is not None and threshold.is_needed:
        text += f"; it would have taken {format_number(_sign(test) * threshold.z)}".replace("-", "−")
    return text + "."


def tell_everywhere(rows: Sequence[InferenceNumbers]) -> str:
    """Say that no inference found anything; empty where one did, or there is none."""
    if not rows or any(row.n_significant for row in rows):
        return ""
    which = "either of the two inferences" if len(rows) == 2 else f"any of the {len(rows)} inferences"
    by = rows[0].title if len(rows) == 1 else which
    return f"Nothing is significant by {by}. No map is drawn: without a threshold it would show noise in colours."


def _sign(test: Test) -> float:
    return -1.0 if test.tail == "negative" else 1.0


def _voxels(count: int) -> str:
    return f"{format_number(count)} {'voxel' if count == 1 else 'voxels'}"
