# Numbers of R's metafor for tests/estimators/test_tau2_by.py: a tau2 for each group.
#
#   Rscript tests/reference/metafor_by_group.R tests/reference/metafor_by_group.json
#
# tau2 are those of metafor's fits by subsets, with every method. ML and REML are fitted as location-scale models, too,
# rma(mods = X, scale = ~ 0 + group): their likelihood is maximised numerically, to about 1e-9 of log tau2.

suppressMessages({library(metafor); library(jsonlite)})

methods <- c(reml = "REML", ml = "ML", dl = "DL", hedges = "HE", hunter_schmidt = "HS", sidik_jonkman = "SJ",
             paule_mandel = "PM", empirical_bayes = "EB")

basis <- function(X) { q <- qr(X); qr.Q(q)[, seq_len(q$rank), drop = FALSE] }

subset_tau2 <- function(y, v, X, method) {
  scale <- mean(v) + var(y)
  suppressWarnings(rma.uni(y, v, mods = basis(X), intercept = FALSE, method = method,
    control = list(threshold = 1e-14 * scale, tol = 1e-14 * scale, tau2.max = 1e4 * scale, maxiter = 100000,
                   evtol = 1e-30)))$tau2
}

by_subsets <- function(y, v, X, group, method) {
  tau2 <- sapply(levels(group), function(g) subset_tau2(y[group == g], v[group == g], X[group == g, , drop = FALSE], method))
  r <- rma.uni(y, v + tau2[group], mods = X, intercept = FALSE, method = "FE")  # known: tau2 is in the variances
  list(tau2 = as.list(tau2), beta = as.vector(r$beta), se = r$se, s2w = r$QE / (length(y) - ncol(X)))
}

by_scale <- function(y, v, X, group, method) {
  Z <- model.matrix(~ 0 + group)
  fit <- function(test, start = NULL) suppressWarnings(rma.uni(y, v, mods = X, intercept = FALSE, scale = Z,
    method = method, test = test, control = c(list(optimizer = "BFGS", reltol = 1e-30, maxit = 10000,
    ndeps = rep(1e-4, ncol(Z))), if (!is.null(start)) list(alpha.init = start))))
  start <- NULL
  for (again in 1:4) start <- as.vector(fit("z", start)$alpha)
  tests <- lapply(setNames(nm = c("knha", "adhoc", "t", "z")), function(test) {
    r <- fit(test, start)
    list(beta = as.vector(r$beta), se = r$se, dof = if (test == "z") NULL else r$ddf, tau2 = as.list(setNames(exp(as.vector(r$alpha)), levels(group))))
  })
  tests
}

case <- function(name, y, v, X, group) {
  X <- unname(as.matrix(X))
  out <- list(name = name, y = y, v = v, X = X, group = as.character(group))
  out$subsets <- setNames(lapply(methods, function(m) by_subsets(y, v, X, group, m)), names(methods))
  if (mean(v) > 0.01)  # its optimizer stops too early in small units
    out$scale <- list(reml = by_scale(y, v, X, group, "REML"), ml = by_scale(y, v, X, group, "ML"))
  fixed <- rma.uni(y, v, mods = X, intercept = FALSE, method = "FE")
  out$Q <- fixed$QE
  out
}

cases <- list()
set.seed(20261129)
draw <- function(sizes, tau2) {
  group <- factor(rep(letters[seq_along(sizes)], sizes))
  v <- runif(sum(sizes), 0.2, 1)
  list(group = group, v = v, y = rnorm(sum(sizes), 0.3 * as.integer(group), sqrt(v + tau2[group])), x = rnorm(sum(sizes)))
}
d <- draw(c(10, 30), c(4.5, 0.9)); cases[[1]] <- case("10 and 30", d$y, d$v, model.matrix(~ d$group), d$group)
cases[[2]] <- case("10 and 30, without an intercept", d$y, d$v, model.matrix(~ 0 + d$group), d$group)
cases[[3]] <- case("10 and 30, slopes", d$y, d$v, model.matrix(~ d$group * d$x), d$group)
d <- draw(c(8, 12, 25), c(3, 0.8, 6)); cases[[4]] <- case("three groups", d$y, d$v, model.matrix(~ d$group), d$group)
d <- draw(c(12, 24), c(5, 1)); cases[[5]] <- case("units 1e-4", d$y * 1e-4, d$v * 1e-8, model.matrix(~ d$group), d$group)

write_json(list(metafor = as.character(packageVersion("metafor")), cases = cases),
           commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE)
