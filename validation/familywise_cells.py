"""Which analyses are simulated, and what is claimed of each."""

from dataclasses import dataclass, field

from null_maps import Maps

ALPHA = 0.05
IN_CELL, POOLED = 0.001, 0.01
"""A claim fails when an error as large as the one found has less than this probability under what is claimed: in one
cell, or in all cells of a method together."""

VOXELWISE, RESAMPLED = ("bonferroni", "fdr"), ("max-stat", "cluster-mass")
OTHERS = ("fdr-by", "rft-voxel", "rft-cluster", "cluster-size", "tfce", "ari")
DEFAULTS = ("fdr", *RESAMPLED)
"""What ``--inference auto`` asks for."""
FEWEST = 6  # maps whose signs have enough relabellings for p of .05; below, bonferroni stands in


def name_of(estimator: str, settings: dict[str, str], *, calibrated: bool = False) -> str:
    """Return an estimator and what was set of it."""
    words = [f"`{estimator}`", *(f'{key} "{value}"' for key, value in settings.items())]
    return ", ".join(words + ["calibrated"] * calibrated)


@dataclass(frozen=True, eq=False)
class Cell:
    """One kind of analysis."""

    estimator: str
    maps: Maps
    settings: dict[str, str] = field(default_factory=dict)
    says: str = ""
    """What the page of such a run says where a level does not hold, as a pattern; "": every level holds."""
    beyond: tuple[str, ...] = ()  # the methods of which ``says`` speaks
    every: bool = False  # all inferences are measured

    @property
    def smooth(self) -> tuple[str, ...]:
        """The inferences that are measured in smooth voxels."""
        return (RESAMPLED if self.maps.n >= FEWEST else ()) + (OTHERS if self.every else ())

    @property
    def methods(self) -> tuple[str, ...]:
        """All that are measured."""
        return VOXELWISE + self.smooth

    def claims(self, method: str) -> bool:
        """Return whether the level is claimed of a method."""
        return method not in self.beyond

    @property
    def name(self) -> str:
        """The estimator and what was set of it."""
        return name_of(self.estimator, self.settings)

    @property
    def title(self) -> str:
        """Return it in words."""
        return f"{self.name}: {self.maps.title}"


def _means(kind: str, *numbers: int, **more: object) -> list[Maps]:
    return [Maps(kind, n, **more) for n in numbers]  # type: ignore[arg-type]


def _groups(kind: str, n: int, first: int, spread: float = 1.0) -> Maps:
    return Maps(kind, n, "groups", first=first, spread=spread)


_FIXED = {"says": "sampling variances have few dof", "beyond": VOXELWISE}
_LIBERAL = {"says": "6.5 to 9 of 100", "beyond": VOXELWISE}
_MANY = {"says": "6 to 7 of 100", "beyond": VOXELWISE}
_UNEQUAL = {"says": "differs? between groups", "beyond": VOXELWISE + RESAMPLED}
_BY_GROUP = {"says": "small p are far too small", "beyond": VOXELWISE}
_SLIGHTLY = {"says": "a group of fewer maps varies more", "beyond": VOXELWISE + RESAMPLED}
_AGREE = {"differ": False}

CELLS = (
    *(Cell("ols", maps, every=maps.n in (12, 20)) for maps in _means("subjects", 5, 8, 12, 20, 30)),
    *(Cell("ols", maps) for maps in _means("studies", 12, 30)),
    Cell("ols", Maps("subjects", 12, missing=0.25)),
    Cell("ols", Maps("subjects", 20, "moderator")),
    Cell("ols", Maps("subjects", 30, "three groups")),
    Cell("ols", _groups("subjects", 20, 10)),
    Cell("ols", _groups("subjects", 40, 10)),
    Cell("ols", _groups("subjects", 40, 10, 1.25), **_SLIGHTLY),
    Cell("ols", _groups("subjects", 40, 10, 1.5), **_UNEQUAL),
    Cell("ols", _groups("subjects", 40, 10, 1.5), {"errors": "sandwich"}),
    Cell("ols", Maps("subjects", 12, "repeated")),
    *(Cell("reml", maps, every=maps.n == 12) for maps in _means("studies", 5, 8, 12, 20)),
    Cell("reml", Maps("studies", 30), **_MANY),
    Cell("reml", Maps("studies", 12, known=True)),
    Cell("reml", Maps("studies", 12, differ=False)),
    Cell("reml", Maps("subjects", 12)),
    Cell("reml", Maps("subjects", 20)),
    Cell("reml", Maps("studies", 12, missing=0.25)),
    Cell("reml", Maps("studies", 20, "moderator")),
    Cell("reml", Maps("subjects", 20, "moderator")),
    Cell("reml", Maps("subjects", 30, "three groups"), **_MANY),
    *(Cell("reml", maps) for maps in _means("studies", 8, 20, standardised=True, **_AGREE)),
    Cell("reml", Maps("studies", 20, standardised=True)),
    Cell("reml", Maps("studies", 20, "moderator", standardised=True)),
    Cell("reml", _groups("studies", 20, 10)),
    Cell("reml", _groups("studies", 40, 10), **_MANY),
    Cell("reml", _groups("studies", 40, 10, 3.0), **_UNEQUAL),
    Cell("reml", _groups("studies", 40, 10, 3.0), {"tau2_by": "x"}, **_BY_GROUP),
    Cell("reml", Maps("studies", 12), {"test": "knha"}, **_LIBERAL),
    Cell("reml", Maps("studies", 20), {"test": "knha"}, **_LIBERAL),
    *(Cell("dl", maps) for maps in _means("studies", 5, 12)),
    Cell("dl", Maps("studies", 30), **_MANY),
    Cell("dl", Maps("subjects", 20)),
    Cell("dl", Maps("studies", 12, missing=0.25)),
    Cell("dl", Maps("studies", 20, "moderator")),
    Cell("dl", _groups("studies", 20, 10)),
    *(Cell("fixed-effects", maps, **_FIXED) for maps in _means("studies", 5, 12, 30, **_AGREE)),
    Cell("fixed-effects", Maps("studies", 12, differ=False, known=True)),
    Cell("fixed-effects", Maps("subjects", 20, differ=False)),
    Cell("fixed-effects", Maps("studies", 12, differ=False, missing=0.25), **_FIXED),
    Cell("fixed-effects", Maps("studies", 20, "moderator", differ=False), **_FIXED),
    *(
        Cell(name, maps)
        for name in ("stouffer", "stouffer-weighted", "fisher")
        for maps in (*_means("studies", 5, 12, 30, **_AGREE), Maps("studies", 12, differ=False, missing=0.25))
    ),
    *(Cell("stouffer-rfx", maps) for maps in _means("studies", 5, 12, 30)),
    Cell("stouffer-rfx", Maps("studies", 12, differ=False)),
    Cell("stouffer-rfx", Maps("studies", 12, missing=0.25)),
    Cell("stouffer-rfx", Maps("studies", 20, "moderator")),
    Cell("stouffer-rfx", _groups("studies", 20, 10)),
)


@dataclass(frozen=True, eq=False)
class Finding:
    """An analysis of studies in which a tenth of the voxels is active."""

    estimator: str
    settings: dict[str, str]
    n: int
    differ: bool
    calibrated: bool = False

    @property
    def liberal(self) -> bool:
        """Whether more false ones are to be expected than fdr says."""
        return "knha" in self.settings.values() and not self.calibrated

    @property
    def name(self) -> str:
        """The estimator and what was set of it."""
        return name_of(self.estimator, self.settings, calibrated=self.calibrated)

    @property
    def maps(self) -> Maps:
        """What is combined."""
        return Maps("studies", self.n, differ=self.differ)

    @property
    def title(self) -> str:
        """Return it in words."""
        return f"active, {self.maps.title}, {self.name}"


HEIGHT = {5: 6.0, 8: 4.3, 10: 3.8, 12: 3.6, 20: 3.2}
"""By number of studies: the active voxels' effect in standard errors, with which `ols` and `fdr` find about a half."""

_KNHA = {"test": "knha"}
_WAYS = (("ols", {}, False), ("reml", {}, False), ("reml", _KNHA, False), ("reml", _KNHA, True))
FINDING = tuple(
    Finding(name, settings, n, differ, calibrated)
    for differ in (True, False)
    for n in HEIGHT
    for name, settings, calibrated in _WAYS
    if not calibrated or (differ and n in (8, 12, 20))  # it takes long
)
