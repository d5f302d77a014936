"""Records come back from JSON as they were: every bit, every type, wherever the folder lies now."""

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from ibma_app.core.errors import InputError
from ibma_app.core.inference_facts import (
    ClusterFacts,
    ExtentFacts,
    Fact,
    Facts,
    LevelFacts,
    NeighbourFacts,
    RandomFieldFacts,
    Relabelling,
    ResamplingFacts,
    ThresholdFacts,
    WarningFact,
    sidecar_of,
)
from ibma_app.core.methods import Estimator
from ibma_app.core.results import Finding
from ibma_app.estimators import find_estimator
from ibma_app.inference import find_inference
from ibma_app.workflows.write.records_to_json import decode, encode


class Point(NamedTuple):
    x: float
    name: str = "unnamed"


@dataclasses.dataclass(frozen=True, eq=False)
class Inner:
    values: NDArray[np.float64]
    points: tuple[Point, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Outer:
    """One field of each kind that a record may have."""

    inner: Inner
    several: tuple[Inner, ...]
    by_key: Mapping[tuple[str, str, str], Path]
    by_number: Mapping[int, Inner]
    maybe: Inner | None
    either: Inner | Point | float | str
    pair: tuple[int, str]
    mask: NDArray[np.bool_]
    anything: Mapping[str, Any]
    listed: list[Point]
    estimator: Estimator
    path: Path
    nested: tuple["Outer", ...] = ()


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal in every bit, and of the same types."""
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)


def there_and_back(value: Any, kind: Any, root: Path, other_root: Path | None = None) -> Any:
    text = json.dumps(encode(value, kind, root), allow_nan=False)
    return decode(json.loads(text), kind, other_root or root)


@pytest.fixture
def outer(tmp_path) -> Outer:
    rng = np.random.default_rng(0)
    inner = Inner(rng.normal(size=(3, 2)), (Point(0.1), Point(-math.inf, "far")))
    return Outer(
        inner=inner,
        several=(inner, Inner(np.array([np.nan, np.inf, -0.0]))),
        by_key={("", "fdr", "z"): tmp_path / "group" / "z.nii.gz", ("a", "", "t"): Path("/elsewhere/t.nii.gz")},
        by_number={3: inner},
        maybe=None,
        either=Point(2.5),
        pair=(3, "x"),
        mask=rng.random((5, 3, 7)) > 0.5,
        anything={
            "tuple": (1, "b", 2.5, None, True), "list": [1, [2]], "nan": math.nan, "float32": np.float32(0.1),
            "int64": np.int64(7), "bool": np.bool_(True), "path": tmp_path / "a", "array": np.arange(4, dtype=np.int16),
            "pairs": {1: "one", ("a", 2): (3,)}, "mark": {"!path": "not a path"},
        },
        listed=[Point(1.0)],
        estimator=find_estimator("reml"),
        path=tmp_path,
    )  # fmt: skip


def test_every_kind_of_field_comes_back(outer, tmp_path):
    nested = dataclasses.replace(outer, nested=(outer, dataclasses.replace(outer, either="text", maybe=outer.inner)))
    assert same(there_and_back(nested, Outer, tmp_path), nested)
    for other in (outer.inner, 0.25, "words"):
        changed = dataclasses.replace(outer, either=other)
        assert same(there_and_back(changed, Outer, tmp_path), changed)


def test_a_moved_folder_takes_its_paths_along(outer, tmp_path):
    back = there_and_back(outer, Outer, tmp_path, Path("/moved"))
    assert back.by_key["", "fdr", "z"] == Path("/moved/group/z.nii.gz")
    assert back.by_key["a", "", "t"] == Path("/elsewhere/t.nii.gz")
    assert back.path == Path("/moved")


def test_fields_of_other_versions(tmp_path):
    assert decode({"x": 1.5, "colour": "red"}, Point, tmp_path) == Point(1.5)
    with pytest.raises(InputError, match="Point lacks x"):
        decode({"name": "a"}, Point, tmp_path)


def test_a_kind_without_words_is_refused(tmp_path):
    with pytest.raises(TypeError, match="set"):
        encode({"a": {1, 2}}, Mapping[str, Any], tmp_path)


RELABELLING = Relabelling(flips=False, of="residuals", whole="clusters")


@pytest.mark.parametrize(
    "facts",
    [
        LevelFacts(0.05, "an error rate", 7),
        ThresholdFacts(None),
        ClusterFacts(0.001),
        NeighbourFacts(26),
        RandomFieldFacts("t", (1.0, math.inf), True, "", (6.0, 6.5, 7.0), (1.0, 2.0, 3.0, 4.5), 9, 70, 4.9),
        ExtentFacts(3.1, 1.5, 10.25, None),
        ResamplingFacts(512, True, RELABELLING, 1 / 256, 3.5, tail_fitted=True),
        Fact("Some", (1, 2.5, "x")),
        WarningFact("look", is_note=True),
    ],
    ids=lambda facts: type(facts).__name__,
)
def test_each_kind_of_facts_comes_back(facts, tmp_path):
    # kinds are told apart by their fields alone
    assert set(typing.get_args(Facts)) >= {type(facts)}
    finding = Finding("mean", find_inference("fdr"), 3, None, (facts, WarningFact("look"), facts))
    back = there_and_back(finding, Finding, tmp_path)
    assert back.inference is finding.inference
    assert same(back.facts, finding.facts)
    assert sidecar_of(back.facts) == sidecar_of(finding.facts)
