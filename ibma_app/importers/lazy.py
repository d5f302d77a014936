"""Maps that are read on access, so that a source with many contrasts does not fill memory."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray


class LazyMaps(Mapping[str, NDArray[Any]]):
    """Kinds of map and how each is read; every access reads again, nothing is cached.

    Parameters
    ----------
    readers : mapping
        Kind -> a function without arguments that returns (X, Y, Z).
    """

    def __init__(self, readers: Mapping[str, Callable[[], NDArray[Any]]]) -> None:
        self._readers = dict(readers)

    def __getitem__(self, kind: str) -> NDArray[Any]:
        return self._readers[kind]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __contains__(self, kind: object) -> bool:
        return kind in self._readers  # Mapping's own would read the map
