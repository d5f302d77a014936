# Numbers of R's metafor for tests/importers/test_region_tables.py: a made table of Cohen's d by study and region.
#
#   Rscript tests/reference/regions.R tests/reference/regions.json
#
# Needs metafor and jsonlite. Tolerances are tight and in units of each region's variance.

suppressMessages({library(metafor); library(jsonlite)})
set.seed(20)

regions <- c("L_bankssts", "L_insula", "L_precentral", "R_bankssts", "R_insula", "R_precentral")
studies <- paste0("s", 1:9)
truth <- c(-0.3, 0, 0.4, -0.2, 0.1, 0)
tau <- c(0, 0.1, 0.2, 0.3, 0.05, 0.15)

rows <- do.call(rbind, lapply(seq_along(studies), function(s) {
  n1 <- sample(30:400, 1); n2 <- sample(30:600, 1)
  missing <- if (s == 4) 2 else 0
  do.call(rbind, lapply(setdiff(seq_along(regions), missing), function(r) {
    own1 <- n1 - sample(0:3, 1); own2 <- n2 - sample(0:3, 1)
    d <- round(rnorm(1, truth[r], sqrt(tau[r]^2 + 1 / own1 + 1 / own2)), 3)
    data.frame(study_id = studies[s], region = regions[r], d = d, n1 = own1, n2 = own2)
  }))
}))

# metafor's LS is of its bias-corrected g; with d in the place of g it is that of d
ls <- escalc("SMD", di = rows$d, n1i = rows$n1, n2i = rows$n2, vtype = "LS")
stopifnot(all(abs(ls$vi - (1 / rows$n1 + 1 / rows$n2 + ls$yi^2 / (2 * (rows$n1 + rows$n2)))) < 1e-15))
rows$g <- as.vector(ls$yi)
rows$vg <- as.vector(ls$vi)
rows$vd <- 1 / rows$n1 + 1 / rows$n2 + rows$d^2 / (2 * (rows$n1 + rows$n2))

fit <- function(region, method, test) {
  own <- rows[rows$region == region, ]
  scale <- mean(own$vd) + var(own$d)
  r <- rma.uni(own$d, own$vd, method = method, test = test, control = list(threshold = 1e-14 * scale,
    tol = 1e-14 * scale, tau2.max = 1e4 * scale, maxiter = 100000, evtol = 1e-30))
  list(region = region, k = nrow(own), effect = as.vector(r$beta), se = r$se, t = r$zval, tau2 = r$tau2, q = r$QE,
       i2 = r$I2)
}
out <- list(version = as.character(packageVersion("metafor")), rows = rows,
            reml = lapply(regions, fit, "REML", "adhoc"), fixed = lapply(regions, fit, "FE", "z"))
write(toJSON(out, auto_unbox = TRUE, digits = NA, pretty = FALSE), commandArgs(TRUE)[1])
