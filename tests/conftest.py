"""What every room's tests share: real maps, small maps made by code, and the command line."""

import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import ibma_app.cli  # isort: skip  # first: it sets how many threads BLAS takes
import hypothesis
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import ArrayLike

import ibma_app
from ibma_app.core.statmap import Dataset, Observation, StatMap
from ibma_app.stream.workers.machine import available_cores

ROOT = Path(__file__).resolve().parents[1]
# tables and help are not wrapped; one core for each run, unless --nprocs says more: the tests themselves take all
PLAIN = {"COLUMNS": "200", "NO_COLOR": "1", "MPLBACKEND": "Agg", "SLURM_CPUS_PER_TASK": "1"}
LPS_4MM = np.array([[-4.0, 0, 0, 10], [0, 4.0, 0, -12], [0, 0, 4.0, -8], [0, 0, 0, 1]])

# no deadline: a first example may compile a kernel; derandomized in CI: a red run can be repeated
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Take every core, but none beside this process for files that are named: a debugger works there."""
    folder = config.invocation_params.dir
    named = [folder / word.partition("::")[0] for word in config.args]
    return 0 if all(path.is_file() for path in named) else available_cores()


ENTITY_ORDER = (
    *("sub", "study", "ses", "task", "acq", "dir", "run", "echo", "hemi", "space", "res", "label", "node"),
    *("taskcontrast", "feature", "contrast", "test", "desc", "corr"),
)


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Return ``contents(folder)``: every file by its name; neither logs nor what pages tell of command and time."""
    ran = re.compile(rb'<details class="ran">.*?</details>', re.DOTALL)

    def read(folder: Path) -> dict[str, bytes]:
        files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
        kept = {name.as_posix(): path for name, path in files.items() if name.parts[0] != "logs"}
        return {name: ran.sub(b"", path.read_bytes()) for name, path in kept.items()}

    return read


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real maps: ../shared beside the checkout, or $IBMA_SHARED."""
    folder = Path(os.environ.get("IBMA_SHARED") or ROOT.parent / "shared")
    if not (folder / "realdata").is_dir():
        pytest.skip(f"needs real maps: no folder {folder / 'realdata'} (set IBMA_SHARED to where realdata lies)")
    return folder


def _describe_dataset(root: Path, name: str = "maps", kind: str = "derivative", **more: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    description = {"Name": name, "BIDSVersion": "1.9.0", "DatasetType": kind, **more}
    (root / "dataset_description.json").write_text(json.dumps(description), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def describe_dataset() -> Callable[..., Path]:
    """Return ``describe_dataset(root, name="maps", kind="derivative", **more) -> root``.

    It makes the folder and its dataset_description.json; ``more`` are
    further keys of it (``GeneratedBy=[...]``).
    """
    return _describe_dataset


def _write_statmap(
    root: Path,
    kind: str,
    values: ArrayLike,
    *,
    metadata: Mapping[str, Any] | None = None,
    affine: ArrayLike | None = None,
    dtype: Any = np.float32,
    extension: str = ".nii.gz",
    folder: str | None = None,
    **entities: str,
) -> Path:
    volume = np.asarray(values, dtype=float)
    if volume.ndim < 3:
        volume = volume.reshape(-1, 1, 1)
    if affine is None:  # 4 mm, centred on the origin
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        affine[:3, 3] = -2.0 * (np.array(volume.shape[:3]) - 1)
    unknown = set(entities) - set(ENTITY_ORDER)
    if unknown:
        raise ValueError(f"no such entities: {sorted(unknown)}; there are {ENTITY_ORDER}")
    if folder is None:
        folder = (
            "/".join(
                ([f"node-{entities['node']}"] if "node" in entities else [])
                + ([f"sub-{entities['sub']}"] if "sub" in entities else [])
                + ([f"study-{entities['study']}"] if "study" in entities else [])
                + ([f"ses-{entities['ses']}"] if "ses" in entities else [])
                + (["func"] if "sub" in entities else [])
            )
            or "group"
        )
    named = [f"{key}-{entities[key]}" for key in ENTITY_ORDER if key in entities and key != "node"]
    stem = "_".join([*named, f"stat-{kind}", "statmap"])
    path = Path(root) / folder / f"{stem}{extension}"
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(volume.astype(dtype), np.asarray(affine)).to_filename(path)
    if metadata is not None:
        path.with_name(f"{stem}.json").write_text(json.dumps(dict(metadata)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def write_statmap() -> Callable[..., Path]:
    """Return ``write_statmap(root, kind, values, *, metadata=None, ..., **entities) -> path``.

    It writes one map with its BIDS name, and a sidecar when ``metadata`` is
    given. ``values`` of one axis become a volume (V, 1, 1). ``entities``
    go by their short keys (``sub="01"``, ``task="x"``, ``contrast="c"``) in
    any order; the folder follows from them (``sub-01/[ses-1/]func``,
    ``study-a``, ``group``; ``node="runLevel"`` puts it into FitLins'
    ``node-runLevel/``) unless ``folder`` says otherwise. ``affine`` (4 mm,
    centred on the origin), ``dtype`` (float32) and ``extension``
    (``.nii.gz``) can be given.
    """
    return _write_statmap


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def _python(*args: Any, env: Mapping[str, str]) -> dict[str, Any]:
    """Give what subprocess needs to start a Python."""
    # -P and PYTHONPATH: the ibma_app that these tests import, installed or not, never one that lies in cwd
    paths = [str(Path(ibma_app.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        "args": [sys.executable, "-P", *map(str, args)],
        "env": {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **PLAIN, **env},
        "stdin": subprocess.DEVNULL,
        "text": True,
    }


@pytest.fixture(scope="session")
def run_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """Return ``run_python(*args, cwd=None, env={}, timeout=600) -> (code, stdout, stderr)``.

    A Python of its own that imports the same ibma_app as these tests.
    """
    empty = tmp_path_factory.mktemp("cwd")

    def run(*args: Any, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 600) -> Ran:
        how = _python(*args, env=env or {})
        done = subprocess.run(**how, cwd=cwd or empty, capture_output=True, timeout=timeout, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def load_test() -> Callable[[str], Any]:
    """Return ``load_test("importers/nidm/test_nidm.py")``: the file of another test, which makes inputs."""

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location("another_test", ROOT / "tests" / name)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Yield ``start_python(*args, env={}, stderr=PIPE) -> Popen``, for a run that will be disturbed.

    It leads a process group of its own, which is sent signals as a terminal
    sends them, and it can be interrupted: a shell that starts these tests in
    the background has them, and all that they start, ignore SIGINT. It does
    not outlive its test.
    """
    started: list[subprocess.Popen[str]] = []

    def start(*args: Any, env: Mapping[str, str] | None = None, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            **_python(*args, env=env or {}), stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


@pytest.fixture(scope="session")
def cli_process(run_python: Callable[..., Ran]) -> Callable[..., Ran]:
    """Return ``cli_process(*args, cwd=None, env={}, timeout=600) -> (code, stdout, stderr)``.

    It runs ``python -m ibma_app *args`` as a user would: for what only a
    process shows (signals, memory, start-up, other processes' output).
    """

    def run(*args: Any, **how: Any) -> Ran:
        return run_python("-m", "ibma_app", *args, **how)

    return run


@contextmanager
def _surroundings(cwd: Path, env: Mapping[str, str]) -> Iterator[None]:
    before, folder = dict(os.environ), Path.cwd()
    os.environ.update({**PLAIN, **env})
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)


class Here:
    """A program of ours, run in this process."""

    def __init__(self, main: Callable[[list[str]], int], cwd: Path) -> None:
        self._main = main
        self._cwd = cwd  # where nothing lies

    def __call__(self, *args: Any, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
        out, err = io.StringIO(), io.StringIO()
        with (
            _surroundings(cwd or self._cwd, env or {}),
            redirect_stdout(out),
            redirect_stderr(err),
            warnings.catch_warnings(record=True) as caught,
        ):
            code = self._main([*map(str, args)])
        shown = [warnings.formatwarning(one.message, one.category, one.filename, one.lineno) for one in caught]
        return Ran(code, out.getvalue(), err.getvalue() + "".join(shown))


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """Return ``cli(*args, cwd=None, env={}) -> (code, stdout, stderr)``.

    It runs ``ibma-app *args`` in this process: all of it but Python's own
    start and the imports, which take longer than most of these runs do.
    Python's warnings are at the end of ``stderr``.
    """
    return Here(ibma_app.cli.main, tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def ibma_import(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """Return ``ibma_import(*args, cwd=None, env={}) -> (code, stdout, stderr)``, in this process."""
    return Here(ibma_app.cli.import_main, tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def maker() -> Callable[[str], Any]:
    """Return ``maker(name)``: the module <name>.py of the tests, which makes inputs as other software does."""
    loaded: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in loaded:
            (path,) = (ROOT / "tests").rglob(f"{name}.py")
            spec = importlib.util.spec_from_file_location(f"made_by_{name}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # dataclasses look their module up
            spec.loader.exec_module(module)
            loaded[name] = module
        return loaded[name]

    return load


@pytest.fixture
def observe(tmp_path) -> Callable[..., Observation]:
    """Return ``observe(unit, {kind: volume or Path}, affine=..., metadata=..., **fields) -> Observation``."""

    def make(unit, volumes, *, affine=LPS_4MM, metadata=None, entities=None, **fields):
        named = {"sub": unit, "contrast": "c", **(entities or {})}
        statmaps = {}
        for kind, volume in volumes.items():
            path = volume
            if not isinstance(volume, Path):
                stem = "_".join(f"{key}-{label}" for key, label in named.items())
                path = tmp_path / f"{stem}_stat-{kind}_statmap.nii.gz"
                nib.Nifti1Image(np.asarray(volume), affine).to_filename(path)
            statmaps[kind] = StatMap(path, kind, Dataset("maps", tmp_path), named, metadata or {})
        return Observation(unit_label=unit, entities=named, statmaps=statmaps, **fields)

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture(scope="session")
def smoothness_of() -> Callable[..., Any]:
    """Return ``smoothness_of(residuals, mask) -> Width``, of residuals (K, V) that are all in memory.

    Each voxel's are over the root of their sum of squares; voxels that are not finite are not used.
    """
    from ibma_app.stats.resels import extended_axes, fwhm_of, sum_roughness

    def measure(residuals, mask):
        places = np.full(mask.shape, -1, dtype=np.int64)
        places[mask] = np.arange(np.count_nonzero(mask))
        axes = extended_axes(mask)
        sound = np.isfinite(residuals).all(axis=0) & ((residuals**2).sum(axis=0) > 0.0)
        covered = np.ones(residuals.shape[::-1], dtype=bool)
        return fwhm_of(sum_roughness(residuals.T, covered, sound, places, axes, mask.shape[0]), axes)

    return measure
