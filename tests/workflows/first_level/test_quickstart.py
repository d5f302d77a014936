"""The commands of docs/quickstart-fmriprep.md, as they stand there."""

import re
import shlex
from pathlib import Path

import nibabel as nib
import pytest

PAGE = Path(__file__).parents[3] / "docs" / "quickstart-fmriprep.md"


@pytest.mark.slow
def test_the_three_commands(maker, cli, tmp_path):
    maker("runs_by_code").make_study(tmp_path, ("01", "02", "03"), ("1",), effect=2.0)
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    for line in block.strip().splitlines():
        ran = cli(*shlex.split(line)[1:], "--no-report", cwd=tmp_path)
        assert ran.code == 0, ran.stderr
    (path,) = (tmp_path / "out" / "group").glob("*contrast-d_*stat-effect_statmap.nii.gz")
    values = nib.load(path).get_fdata()
    assert values[values != 0].mean() == pytest.approx(2.0, abs=0.3)
