"""What would be uploaded: sdist and wheel, built as an index's users get them, and their version."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1_000_000

pytestmark = pytest.mark.skipif(
    any(shutil.which(name, path=str(Path(sys.executable).parent)) is None for name in ("hatchling", "pyproject-build")),
    reason="needs hatchling, hatch-vcs and build (the test extra)",
)


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-P", *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_tree(folder: Path) -> Path:
    """Copy what the packages are made of, without git's history."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "ibma_app", folder / "ibma_app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "packaging", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist of a tagged checkout, and the wheel that is built from that sdist."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("needs git: the version is a tag")
    tree = copy_tree(tmp_path_factory.mktemp("distribution") / "tree")
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "all"], ["tag", "v1.2.3"]):
        subprocess.run([git, *words], cwd=tree, check=True, capture_output=True)
    run("-m", "build", "--no-isolation", ".", cwd=tree)
    (sdist,), (wheel,) = tree.glob("dist/*.tar.gz"), tree.glob("dist/*.whl")
    return sdist, wheel


def test_the_version_is_the_tag(built) -> None:
    sdist, wheel = built
    assert sdist.name == "ibma_app-1.2.3.tar.gz"
    assert wheel.name == "ibma_app-1.2.3-py3-none-any.whl"


def test_a_tree_without_git_has_a_version(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path / "tree")
    assert run("-m", "hatchling", "version", cwd=tree).strip() == "0.0.0"


def test_the_wheel_holds_the_package_and_no_more(built) -> None:
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        sizes = {item.filename: item.file_size for item in archive.infolist()}
    tops = {name.partition("/")[0] for name in sizes}
    assert tops == {"ibma_app", "ibma_app-1.2.3.dist-info"}
    assert not [name for name in sizes if "test" in name.split("/")[-2:-1] or name.endswith((".pyc", ".nbi", ".nbc"))]
    assert {name: size for name, size in sizes.items() if size > MEGABYTE} == {}
    assert wheel.stat().st_size < 1.25 * MEGABYTE  # the run level and Stats Models brought it to 1.03
    ours = [path for path in (ROOT / "ibma_app").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert "ibma_app/py.typed" in sizes
    assert {path.relative_to(ROOT).as_posix() for path in ours} <= set(sizes)  # templates too


def test_the_sdist_holds_what_it_takes(built) -> None:
    sdist, _ = built
    with tarfile.open(sdist) as archive:
        sizes = {item.name.partition("/")[2]: item.size for item in archive.getmembers()}
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "ibma_app/cli.py", "ibma_app/py.typed"} <= set(sizes)
    assert {name: size for name, size in sizes.items() if size > MEGABYTE} == {}


def test_metadata(built) -> None:
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        about = Parser().parsestr(archive.read("ibma_app-1.2.3.dist-info/METADATA").decode())
        doors = archive.read("ibma_app-1.2.3.dist-info/entry_points.txt").decode()
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Description-Content-Type"] == "text/markdown"
    assert re.findall(r"^(\S+) = ", doors, re.M) == ["ibma-app", "ibma-demo", "ibma-import", "ibma-publish"]


def test_the_wheel_installs_and_answers(built, tmp_path: Path) -> None:
    # dependencies are this environment's; .ci/run installs them too, into a clean one
    _, wheel = built
    place = tmp_path / "site"
    pytest.importorskip("pip")
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", place, wheel, cwd=tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(place)!r}); from ibma_app.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    assert run("-c", code, "--version", cwd=tmp_path).strip() == "ibma-app 1.2.3"
    assert "--bids-filter-file" in run("-c", code, "--help", cwd=tmp_path)
