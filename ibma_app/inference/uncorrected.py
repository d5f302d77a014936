"""No correction: p of each voxel alone, thresholded at the cluster-forming level."""

from ibma_app.core.estimate import Field, Null, Significance
from ibma_app.core.methods import Citation, Inference, InferenceSettings
from ibma_app.inference.decide import check_level, decide


def infer(field: Field, null: Null | None, settings: InferenceSettings) -> Significance:
    """Threshold uncorrected p at ``settings.cluster_p``, in the field's tail."""
    level = check_level(settings.cluster_p, "--cluster-p")
    return decide(field, field.log10_p[field.estimable], level, "error rate of each voxel", level)


INFERENCE = Inference(
    name="uncorrected",
    title="uncorrected p values",
    infer=infer,
    words="Uncorrected p values were thresholded at p < {Alpha}, voxel by voxel.",
    citations=(
        Citation(
            key="woo2014",
            authors="Woo C-W, Krishnan A, Wager TD",
            year=2014,
            title="Cluster-extent based thresholding in fMRI analyses: pitfalls and recommendations",
            source="NeuroImage 91, 412-419",
            doi="10.1016/j.neuroimage.2013.12.058",
        ),
    ),
)
