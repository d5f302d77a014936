"""Sources that several estimators cite."""

from ibma_app.core.methods import Citation

BELL_2002 = Citation(
    "bell2002",
    "Bell RM, McCaffrey DF",
    2002,
    "Bias reduction in standard errors for linear regression with multi-stage samples",
    "Survey Methodology 28(2), 169-181",
)

HEDGES_1985 = Citation(
    "hedges1985",
    "Hedges LV, Olkin I",
    1985,
    "Statistical methods for meta-analysis",
    "Academic Press, Orlando",
)

KENWARD_1997 = Citation(
    "kenward1997",
    "Kenward MG, Roger JH",
    1997,
    "Small sample inference for fixed effects from restricted maximum likelihood",
    "Biometrics 53(3), 983-997",
    "10.2307/2533558",
)

PUSTEJOVSKY_2018 = Citation(
    "pustejovsky2018",
    "Pustejovsky JE, Tipton E",
    2018,
    "Small-sample methods for cluster-robust variance estimation and hypothesis testing in fixed effects models",
    "Journal of Business & Economic Statistics 36(4), 672-683",
    "10.1080/07350015.2016.1247004",
)

STOUFFER_1949 = Citation(
    "stouffer1949",
    "Stouffer SA, Suchman EA, DeVinney LC, Star SA, Williams RM",
    1949,
    "The American soldier: adjustment during army life (volume 1)",
    "Princeton University Press, Princeton",
    "",
)
