"""AFNI's units: scaling stated in the history, heights and weights of the design."""

import numpy as np
import pytest

from ibma_app.core.study import ImportRequest
from ibma_app.importers.afni.importer import read
from ibma_app.importers.afni.scaling import read_commands, stated_scaling

HISTORY = (
    "[me@host: Mon Jan 1 10:00:00 2024] {AFNI_23.1.00:linux} 3dcalc -a pb03.r01.blur+tlrc -b rm.mean_r01+tlrc "
    "-expr 'min(200, a/b*100)*step(a)*step(b)' -prefix scaled\\n"
    "[me@host: Mon Jan 1 11:00:00 2024] 3dDeconvolve -input scaled+tlrc -polort 2 -num_stimts 3 "
    "-stim_times 1 vis.txt 'BLOCK(20,1)' -stim_label 1 vis -stim_times 2 aud.txt 'BLOCK(20,1)' -stim_label 2 aud "
    "-stim_times 3 x.txt 'BLOCK(20)' -stim_label 3 odd -gltsym 'SYM: vis -aud' -glt_label 1 V-A "
    "-gltsym 'SYM: vis +aud' -glt_label 2 sum -fout -tout -bucket stats"
)


@pytest.fixture(scope="module")
def afni(maker):
    return maker("afni_folder")


def first_level(values):
    labels = [("Full_Fstat", (4, 3, 90)), ("vis#0_Coef", None), ("vis#0_Tstat", (3, 92)), ("aud#0_Coef", None),
              ("aud#0_Tstat", (3, 92)), ("odd#0_Coef", None), ("odd#0_Tstat", (3, 92)), ("V-A_GLT#0_Coef", None),
              ("V-A_GLT#0_Tstat", (3, 92)), ("sum_GLT#0_Coef", None), ("sum_GLT#0_Tstat", (3, 92))]  # fmt: skip
    return [(label, aux, value, "f4", 0) for (label, aux), value in zip(labels, values, strict=True)]


def test_percent_signal_where_scaling_height_and_weights_are_stated(afni, tmp_path):
    values = afni.volumes(11)
    study = read(str(afni.write_head(tmp_path, "stats+tlrc", first_level(values), history=HISTORY)), ImportRequest())
    found = {contrast.name: contrast for contrast in study.contrasts}
    assert study.level == "subject"
    assert "3dDeconvolve" in study.software
    for name in ("vis", "aud", "V-A", "sum"):
        assert found[name].units == "percent", found[name].units_source
        assert found[name].regressor_height == 1
    assert found["V-A"].contrast_weights == {"vis#0": 1.0, "aud#0": -1.0}
    np.testing.assert_allclose(found["V-A"].maps["effect"], values[7])
    np.testing.assert_allclose(found["sum"].maps["effect"], values[9] / 2)  # both positive: their sum is 2
    np.testing.assert_array_equal(found["sum"].maps["t"], values[10])
    assert found["odd"].units == "unknown"  # BLOCK(20) without an amplitude: its height is not stated
    assert "height" in found["odd"].units_source


def test_heights_and_weights_of_the_design_beside_it(afni, tmp_path):
    design = np.column_stack([np.ones(8), np.r_[0, 0, 2, 2, 0, 0, 0, 0], np.r_[0, 0, 0, 0, 0, 1.9, 2, 0]])
    header = [
        '#  ColumnLabels = "Run#1Pol#0 ; vis#0 ; aud#0"',
        '#  GltLabels = "V-A"',
        '#  GltMatrix_000000 = "1,3,1@0,1,-1"',
    ]
    rows = [" ".join(f"{value:g}" for value in row) for row in design]
    (tmp_path / "X.xmat.1D").write_text("\n".join(["# <matrix", *header, "# >", *rows, "# </matrix>"]))
    history = "[a@b: now] 3dREMLfit -matrix X.xmat.1D -input 'pb04.s1.r01.scale+tlrc.HEAD' -tout -Rbuck stats_REML"
    values = afni.volumes(4)
    labels = (("vis#0_Coef", None), ("vis#0_Tstat", (3, 5)), ("V-A_GLT#0_Coef", None), ("V-A_GLT#0_Tstat", (3, 5)))
    bricks = [(*label, value, "f4", 0) for label, value in zip(labels, values, strict=True)]
    study = read(str(afni.write_head(tmp_path, "stats_REML+tlrc", bricks, history=history)), ImportRequest())
    for contrast, value in zip(study.contrasts, (values[0], values[2]), strict=True):
        assert (contrast.units, contrast.regressor_height, contrast.scaling_factor) == ("percent", 2, 2)
        np.testing.assert_allclose(contrast.maps["effect"], 2 * value, rtol=1e-6)


@pytest.mark.parametrize(
    ("option", "basis", "heights"),
    [
        ("-stim_times", "BLOCK(20,1)", (True, True)),
        ("-stim_times", "TENT(0,10,2)", (True, True)),  # the response at each delay
        ("-stim_times", "SPMG2", (True, False)),
        ("-stim_times", "SIN(0,20,2)", (False, False)),
        ("-stim_times_AM2", "BLOCK(20,1)", (True, False)),
    ],
)
@pytest.mark.parametrize("stated", ["basis", "command"])
def test_derivatives_and_modulators_have_no_height(afni, tmp_path, option, basis, heights, stated):
    command = f"3dDeconvolve -num_stimts 1 {option} 1 vis.1D '{basis}' -stim_label 1 vis"
    words = {"basis": f'#  BasisOption_000001 = "{option}"\n#  BasisName_000001 = "vis"\n'
                      f'#  BasisFormula_000001 = "{basis}"', "command": f'#  CommandLine = "{command}"'}  # fmt: skip
    rows = "\n".join(f"1 {row % 2} {row % 3}" for row in range(8))
    header = f'# <matrix\n#  ColumnLabels = "Run#1Pol#0 ; vis#0 ; vis#1"\n{words[stated]}\n# >\n'
    (tmp_path / "X.xmat.1D").write_text(f"{header}{rows}\n")
    labels = (("vis#0_Coef", None), ("vis#0_Tstat", (3, 5)), ("vis#1_Coef", None), ("vis#1_Tstat", (3, 5)))
    bricks = [(*label, value, "f4", 0) for label, value in zip(labels, afni.volumes(4), strict=True)]
    history = f"[a@b: now] 3dcalc -a e -b m -expr 'a/b*100'\\n[a@b: now] {command} -x1D X.xmat.1D"
    study = read(str(afni.write_head(tmp_path, "stats+tlrc", bricks, history=history)), ImportRequest())
    assert tuple(contrast.units == "percent" for contrast in study.contrasts) == heights


def test_contrasts_are_known_by_the_design_where_labels_leave_glt_out(afni, tmp_path):
    (tmp_path / "X.xmat.1D").write_text(
        '# <matrix\n#  ColumnLabels = "vis#0 ; aud#0"\n#  GltLabels = "V-A"\n#  GltMatrix_000000 = "1,2,1,-1"\n# >\n'
        "0 3\n3 0\n0 0\n"
    )
    bricks = [("V-A#0_Coef", None, afni.volumes(2)[0], "f4", 0), ("V-A#0_Tstat", (3, 9), afni.volumes(2)[1], "f4", 0)]
    history = "[a@b: now] 3dREMLfit -matrix X.xmat.1D -input pb04.s1.r01.scale+tlrc -tout -Rbuck s"
    (contrast,) = read(str(afni.write_head(tmp_path, "s+tlrc", bricks, history=history)), ImportRequest()).contrasts
    assert (contrast.units, contrast.scaling_factor) == ("percent", 3)
    assert contrast.contrast_weights == {"vis#0": 1.0, "aud#0": -1.0}


@pytest.mark.parametrize(
    ("expression", "stated"),
    [("100*a/b", True), ("(a-b)/b*100", True), ("100 * (a - b)/b", True), ("a/b", False), ("a*100", False)],
)
def test_what_counts_as_stated(expression, stated):
    commands = read_commands(f"[a@b: now] 3dcalc -a x -b mean -expr '{expression}' -prefix y")
    assert bool(stated_scaling(commands)) == stated
