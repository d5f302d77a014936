"""From files to maps, beside NiMARE and nilearn: CPU, wall time and memory, and where a run spends its time.

    python benchmarks/bench_files.py [--nimare PYTHON] [--data FOLDER] [--repeat 3]

All sides read the same files of whole brains (`brains.py`), write their maps, and are clocked from the start of the
interpreter. NiMARE may need an environment of its own: name its python. Maps are compared where both have values.
"""

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import brains
import nibabel as nib
import numpy as np
from clock import Taken, best, run, say

HERE = Path(__file__).parent
PATH = {"PYTHONPATH": str(HERE.parent)}
DRIVER = "import sys; from ibma_app.cli import main; sys.exit(main())"  # as the installed program does
FORMULA = "1 + " + " + ".join(f"x{c}" for c in range(1, brains.COLUMNS + 1))
TEN = ["mean=intercept", *(f"x{c}=x{c}" for c in range(1, brains.COLUMNS + 1))]


def app(data: Path, out: Path, level: str, words: Sequence[str], repeat: int) -> Taken:
    """Clock ibma-app into an empty folder."""
    taken = []
    for _ in range(repeat):
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-c", DRIVER, str(data), str(out), level, "--no-report", *words]
        taken.append(run(command, PATH))
    least = min(taken, key=lambda one: one.cpu)
    return least._replace(wall=min(one.wall for one in taken), peak=max(one.peak for one in taken))


def row(title: str, ours: Taken, theirs: Taken | None, agreement: str) -> str:
    """Write one line of the table."""
    mine = f"| {title} | {ours.cpu:.1f} | {ours.wall:.1f} | {ours.peak:.0f} "
    if theirs is None:
        return f"{mine}| | | | | |"
    ratio = f"{theirs.cpu / ours.cpu:.1f}"
    return f"{mine}| {theirs.cpu:.1f} | {theirs.wall:.1f} | {theirs.peak:.0f} | {ratio} | {agreement} |"


def agree(ours: Path, theirs: Path, squared: bool = False) -> str:
    """Tell the largest difference of two maps where both have values, as a share of the largest value."""
    mine, other = nib.load(ours).get_fdata(), nib.load(theirs).get_fdata()
    other = other**2 if squared else other
    both = (mine != 0) & (other != 0) & np.isfinite(other)
    if both.sum() < 0.9 * np.count_nonzero(mine):
        raise RuntimeError(f"{ours} and {theirs} hardly share a voxel.")
    return f"{np.abs(mine - other)[both].max() / np.abs(other[both]).max():.0e}"


def head(what: str, peer: str) -> None:
    say(f"\n### {what}\n")
    say(f"| | CPU s | wall s | MiB | {peer}: CPU s | wall s | MiB | its CPU / ours | largest difference |")
    say("|---|---|---|---|---|---|---|---|---|")


def studies(folder: Path, nimare: str | None, repeat: int) -> None:
    """(a) 21 studies at 2 mm, beside NiMARE."""
    head(f"21 studies, {brains.VOXELS:,} voxels", "NiMARE")
    data, mask = brains.make_studies(folder / "studies"), brains.make_mask(folder / "mask.nii.gz")
    stem = f"space-{brains.SPACE}_contrast-pain_desc"
    for name in ("stouffer", "dl", "reml"):
        out, theirs, agreement = folder / "out", None, ""
        ours = app(data, out, "group", ["--estimator", name, "--units", "assume-same"], repeat)
        if nimare:
            peer = folder / "out_nimare"
            shutil.rmtree(peer, ignore_errors=True)
            theirs = best([nimare, str(HERE / "peer_nimare.py"), str(data), str(peer), str(mask), name], repeat)
            kind, its = ("z", "z") if name == "stouffer" else ("effect", "est")
            agreement = agree(
                out / "group" / f"{stem}-{name}_stat-{kind}_statmap.nii.gz", peer / f"{name}_{its}.nii.gz"
            )
        say(row(f"`{name}`", ours, theirs, agreement))


def runs(folder: Path, repeat: int) -> None:
    """(b) Fixed effects of one subject's runs, beside nilearn's compute_fixed_effects."""
    head("One subject's runs, fixed effects", "nilearn")
    mask = brains.make_mask(folder / "mask.nii.gz")
    for n in (2, 8):
        data, out, peer = brains.make_runs(folder / f"runs{n}", n), folder / "out", folder / "out_nilearn"
        ours = app(data, out, "participant", [], repeat)
        theirs = best([sys.executable, str(HERE / "peer_nilearn.py"), "runs", str(data), str(peer), str(mask)], repeat)
        made = next((out / "sub-01" / "func").glob("*stat-effect_statmap.nii.gz"))
        say(row(f"{n} runs", ours, theirs, agree(made, peer / "effect.nii.gz")))


def subjects(folder: Path, repeat: int) -> None:
    """(c) A group of subjects, one contrast and ten, beside nilearn's SecondLevelModel."""
    head("A group of subjects, `ols`", "nilearn")
    for n, tests in ((20, 1), (100, 1), (100, 10)):
        data = brains.make_subjects(folder / f"distinct{n}", n, distinct=n)
        out, peer = folder / "out", folder / "out_nilearn"
        words = ["--estimator", "ols", *(["--formula", FORMULA, "--test", *TEN] if tests > 1 else [])]
        ours = app(data, out, "group", words, repeat)
        command = [sys.executable, str(HERE / "peer_nilearn.py"), "group", str(data), str(peer), str(tests)]
        theirs = best(command, 1 if tests > 1 else repeat)
        made = next((out / "group").glob(f"*{'test-mean_' if tests > 1 else ''}desc-ols_stat-z_statmap.nii.gz"))
        what = f"{n} subjects, {tests} contrast" + ("s" if tests > 1 else "")
        say(row(what, ours, theirs, agree(made, peer / "intercept_z_score.nii.gz")))


def shares(folder: Path, repeat: int) -> None:
    """(f) Where the CPU time goes, beside the floor."""
    from phases import PHASES

    say("\n### Where the CPU time goes, one process\n")
    say(f"| CPU s | {' | '.join(PHASES)} | whole | floor: reading | writing | imports | whole / floor |")
    say("|---|" + "---|" * (len(PHASES) + 5))
    collection, group = folder / "studies", folder / "distinct100"
    same = ["--units", "assume-same"]
    asked = [
        ("21 studies, `reml`", collection, "group", ["--estimator", "reml", *same, "--no-report"]),
        ("the same with its report", collection, "group", ["--estimator", "reml", *same]),
        ("100 subjects, `ols`", group, "group", ["--estimator", "ols", "--no-report"]),
        ("8 runs", folder / "runs8", "participant", ["--no-report"]),
    ]
    for title, data, level, words in asked:
        say(share(folder, title, data, [level, *words, "--nprocs", "1"], repeat))


def share(folder: Path, title: str, data: Path, words: Sequence[str], repeat: int) -> str:
    from phases import PHASES

    out, told = folder / "out", folder / "phases.json"
    found = []
    for _ in range(repeat):
        shutil.rmtree(out, ignore_errors=True)
        run([sys.executable, str(HERE / "phases.py"), str(told), str(data), str(out), *words], PATH)
        found.append(json.loads(told.read_text())["taken"])
    taken = min(found, key=lambda one: sum(one.values()))
    reml = "reml" in words
    kinds = ("effect", "variance") if reml or "participant" in words else ("effect",)
    files = {
        "inputs": [str(path) for kind in kinds for path in sorted(data.rglob(f"s*_stat-{kind}_statmap.nii.gz"))],
        "outputs": [str(path) for path in sorted(out.rglob("*.nii.gz"))],
    }
    (folder / "floor.json").write_text(json.dumps(files))
    floor = json.loads(run([sys.executable, str(HERE / "floor.py"), str(folder / "floor.json")], PATH).output)
    imports = best([sys.executable, str(HERE / "floor.py"), "imports", str(told)], repeat, PATH).cpu
    whole, least = sum(taken.values()), floor["reading"] + floor["writing"] + imports
    cells = [*(taken.get(phase, 0.0) for phase in PHASES), whole, floor["reading"], floor["writing"], imports]
    return f"| {title} | {' | '.join(f'{cell:.2f}' for cell in cells)} | {whole / least:.2f} |"


def compare(folder: Path, nimare: str | None, repeat: int) -> None:
    """Print all tables."""
    warm = folder / "out"
    app(brains.make_runs(folder / "runs2", 2), warm, "participant", [], 1)  # kernels compile once an installation
    studies(folder, nimare, repeat)
    runs(folder, repeat)
    subjects(folder, repeat)
    shares(folder, repeat)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    has = sys.executable if importlib.util.find_spec("nimare") else None
    parser.add_argument("--nimare", metavar="PYTHON", default=has, help="a python that has NiMARE")
    parser.add_argument("--data", type=Path, help="where the data are made, and kept (default: nowhere)")
    parser.add_argument("--repeat", type=int, default=3, help="the least of so many runs counts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(given.data or Path(folder), given.nimare, given.repeat)


if __name__ == "__main__":
    main()
