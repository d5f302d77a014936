# Balanced repeated measures by afex: Rscript tests/reference/afex.R tests/reference/afex.json
suppressMessages({library(afex); library(jsonlite)})

set.seed(20250302)
units <- 12
d <- expand.grid(rep = factor(1:3), stim = factor(c("f", "h", "s")), unit = factor(1:units))
d$group <- factor(ifelse(as.integer(d$unit) <= units / 2, "p", "q"))
sd <- c(2, 2, .3)[as.integer(d$stim)]
d$y <- rnorm(units)[as.integer(d$unit)] + sd * rnorm(units * 3)[3 * (as.integer(d$unit) - 1) + as.integer(d$stim)] +
  rnorm(nrow(d), 0, 1 + .5 * (as.integer(d$rep) == 2)) + .3 * (d$stim == "f")

multivariate <- function(fit) {  # Pillai's F is exact where the hypothesis has one row per within-subject variable
  tests <- suppressWarnings(summary(fit$Anova, multivariate = TRUE))$multivariate.tests
  lapply(tests, function(one) {
    p <- ncol(one$SSPH); h <- one$df; e <- one$df.residual
    stopifnot(h == 1)
    t2 <- e * sum(diag(solve(one$SSPE, one$SSPH)))
    list(F = t2 * (e - p + 1) / (e * p), dof1 = p, dof = e - p + 1)
  })
}
within <- aov_ez("unit", "y", d, within = c("stim", "rep"))
mixed <- aov_ez("unit", "y", d, within = c("stim", "rep"), between = "group")
means <- aggregate(y ~ unit + group, d, mean)
write_json(list(
  afex = as.character(packageVersion("afex")), y = d$y, unit = as.integer(d$unit), stim = as.integer(d$stim),
  rep = as.integer(d$rep), group = as.integer(d$group), within = multivariate(within), mixed = multivariate(mixed),
  between = list(F = mixed$anova_table["group", "F"], dof1 = mixed$anova_table["group", "num Df"],
                 dof = mixed$anova_table["group", "den Df"])),
  commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE)
