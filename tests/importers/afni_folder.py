"""AFNI datasets made by code: BRIK/HEAD of some sub-bricks."""

import gzip

import numpy as np

SHAPE = (4, 5, 3)
CODES = {"u1": 0, "i2": 1, "f4": 3}


def attribute(name, values):
    if isinstance(values, str):
        return f"\ntype = string-attribute\nname = {name}\ncount = {len(values) + 1}\n'{values}~\n"
    kind = "integer" if all(isinstance(value, int) for value in values) else "float"
    rows = "\n".join(" ".join(f"{value!r:>14}" for value in values[at : at + 5]) for at in range(0, len(values), 5))
    return f"\ntype = {kind}-attribute\nname = {name}\ncount = {len(values)}\n{rows}\n"


def write_head(folder, prefix, bricks, *, space="TT_N27", view=2, order="<", history="", packed=False, **more):
    """Write BRIK/HEAD; ``bricks`` are (label, stataux or None, values, dtype, factor)."""
    aux = [
        number
        for at, brick in enumerate(bricks)
        if brick[1]
        for number in (at, brick[1][0], len(brick[1]) - 1, *brick[1][1:])
    ]
    attributes = {
        "TYPESTRING": "3DIM_HEAD_FUNC",
        "SCENE_DATA": [view, 11, 1, -999, -999, -999, -999, -999],
        "ORIENT_SPECIFIC": [0, 3, 4],  # RAI: AFNI's usual order, x and y against RAS+
        "ORIGIN": [-6.0, -8.0, -4.0],
        "DELTA": [4.0, 4.0, 4.0],
        "IJK_TO_DICOM_REAL": [4.0, 0.0, 0.0, -6.0, 0.0, 4.0, 0.0, -8.0, 0.0, 0.0, 4.0, -4.0],
        "DATASET_RANK": [3, len(bricks), 0, 0, 0, 0, 0, 0],
        "DATASET_DIMENSIONS": [*np.shape(bricks[0][2]), 0, 0],
        "BRICK_TYPES": [CODES[brick[3]] for brick in bricks],
        "BRICK_FLOAT_FACS": [float(brick[4]) for brick in bricks],
        "BRICK_LABS": "~".join(brick[0] for brick in bricks),
        "BYTEORDER_STRING": "MSB_FIRST" if order == ">" else "LSB_FIRST",
        **({"BRICK_STATAUX": [float(number) for number in aux]} if aux else {}),
        **({"TEMPLATE_SPACE": space} if space else {}),
        **({"HISTORY_NOTE": history} if history else {}),
        **more,
    }
    head = folder / f"{prefix}.HEAD"
    head.write_text("".join(attribute(name, values) for name, values in attributes.items() if values is not None))
    raw = b"".join(
        (values if dtype == "f4" else np.rint(values / factor)).astype(order + dtype).tobytes(order="F")
        for _, _, values, dtype, factor in bricks
    )
    brik = folder / f"{prefix}.BRIK"
    if packed:
        brik.with_name(brik.name + ".gz").write_bytes(gzip.compress(raw))
    else:
        brik.write_bytes(raw)
    return head


def volumes(count, seed=1):
    return [
        np.asarray(volume) for volume in np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)
    ]
