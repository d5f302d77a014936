"""Pages of maps on both hemispheres, and what is not made of them yet."""

import numpy as np

from ibma_app.cli import publish_main

N = 162  # vertices of a hemisphere


def test_figures_of_both_hemispheres_name_neither_and_no_pack_is_made(maker, tmp_path, cli, capsys):
    made, rng = maker("made_surfaces"), np.random.default_rng(11)
    root, out, meshes = made.describe(tmp_path / "data"), tmp_path / "out", []
    for side in "LR":
        meshes.append(f"{side}={made.write_mesh(tmp_path / f'{side}.surf.gii', *made.icosphere(), side)}")
        for sub in ("01", "02", "03", "04"):
            name = made.stem(sub, middle=f"hemi-{side}_space-toy_den-162", kind="effect")
            made.write_gifti(root / f"{name}.func.gii", rng.normal(3.0, size=N))
    ran = cli(root, out, "group", "--estimator", "ols", "--inference", "fdr", "max-stat", "--surface", *meshes)
    assert ran.code == 0, ran.stderr
    names = [path.name for path in out.rglob("*.svg")]
    assert any(name.endswith("_surface.svg") for name in names)
    assert not [name for name in names if "hemi-" in name]
    assert publish_main([str(out), str(tmp_path / "pack"), "--kinds", "nimads"]) == 64
    assert "Only volumes can be published as yet." in capsys.readouterr().err
