"""Sentences on methods, by the menu name of what was run."""

ESTIMATOR_WORDS = {
    ("fixed-effects", "participant"): (
        "Maps were combined by precision-weighted fixed effects: the effect is the mean of the maps' effects "
        "weighted by the inverse of their sampling variances, its variance is the inverse of the summed "
        "weights, and t, their ratio, has the sum of the dof of the maps that cover the voxel."
    ),
    ("fixed-effects", "group"): (
        "Each map was weighted by the inverse of its sampling variance, and the weighted mean (or "
        "regression) was tested with a z statistic. One true effect for all is assumed: the result speaks "
        "of these {units} only, not of others like them."
    ),
    ("equal weights", ""): (
        "The effect is the plain mean of the maps' effects; its variance is propagated from their sampling variances."
    ),
    ("ols", ""): (
        "A random-effects general linear model was fitted to the effect maps by ordinary least squares; "
        "sampling variances were not used and the {units} are weighted alike. t and F have as residual dof "
        "the number of maps at the voxel minus the rank of the design."
    ),
    ("mixed", ""): (
        "Each map was weighted by 1/(variance + tau2), where variance is the map's own sampling variance and "
        "tau2 the variance of true effects between {units}, estimated at each voxel; inference is on the "
        "population that the {units} stand for."
    ),
    ("stouffer", ""): (
        "z values of all maps were summed and divided by the square root of their number. This asks whether "
        "there is evidence for an effect in at least some of the {units}, not whether the effect is "
        "consistent over them; units of the effects cancel."
    ),
    ("stouffer-weighted", ""): (
        "z values were combined with weights equal to the square root of each sample size. This asks whether "
        "there is evidence for an effect in at least some of the {units}, larger ones counting more, not "
        "whether the effect is consistent over them; units of the effects cancel."
    ),
    ("stouffer-rfx", ""): (
        "z values of the maps were taken as data of a general linear model and tested with a t statistic. "
        "This asks whether the standardised evidence is consistent over {units}; units of the effects "
        "cancel, and every map counts alike whatever its size."
    ),
    ("fisher", ""): (
        "p values were combined as minus twice the sum of their logarithms, which is chi-squared with "
        "twice as many dof as there are maps. This asks whether there is evidence for an effect in at least "
        "one of the {units}. Two directed tests are made; a two-sided p is twice the smaller, at most 1, and "
        "z carries the sign of that direction."
    ),
    ("tippett", ""): (
        "The smallest p value of all maps was tested against what is expected of the smallest of as many. "
        "This asks whether there is evidence for an effect in at least one of the {units}. Two directed "
        "tests are made; a two-sided p is twice the smaller, at most 1, and z carries the sign of that "
        "direction."
    ),
}
"""What an estimator does and which question it asks, by (menu name, level or "")."""

TEST_WORDS = {
    "knha": (
        "Standard errors follow Knapp and Hartung: they are scaled by the weighted residuals and tested "
        "with t and F on as many residual dof as the number of maps at the voxel minus the rank of the "
        "design."
    ),
    "adhoc": (
        "Standard errors follow Knapp and Hartung with a scale factor of at least one, tested with t and F "
        "on the residual dof."
    ),
    "t": "Wald standard errors were tested with t and F on the residual dof.",
    "z": "Wald standard errors were tested with the normal distribution.",
}
"""How a mixed model tests, by its setting ``test``."""

COMMON_TEST_WORDS = {
    "z": "Its ratio to its standard error was tested as z.",
    "t": "Its ratio to its standard error was tested as t, with the sum of the dof of the maps that cover the voxel.",
}
"""How a common effect is tested, by its setting ``test``."""

SETTINGS_IN_WORDS = (
    *(("test", value) for value in TEST_WORDS),
    *(("weights", value) for value in ("variance", "equal")),
    *(("tau2_ci", value) for value in ("no", "yes")),
)
"""Settings that the sentences tell; others are listed by name."""

UNITS_WORDS = {
    "assume-same": (
        "That all effects are in one unit was taken on the word of the user (--units assume-same); it was not checked."
    ),
    "hedges-g": (
        "Effects of unknown or different units were turned into standardised effects (Hedges' g, "
        "--units hedges-g) from t (or z) and sample size n: g = J t/sqrt(n) with the exact small-sample factor "
        "J = gamma(m/2) / (sqrt(m/2) gamma((m-1)/2)), m the degrees of freedom (for two groups n = n1 n2/(n1+n2)), and "
        "sampling variance J^2 m/(m-2) (1/n + g^2) - g^2 (Hedges 1981)."
    ),
}
"""What a policy on units means for the reader, by the value of ``--units``."""
