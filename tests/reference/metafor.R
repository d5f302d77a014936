# Numbers of R's metafor for tests/estimators/test_metafor.py.
#
#   Rscript tests/reference/metafor.R tests/reference/metafor.json
#
# Needs metafor, metadat and jsonlite. Tolerances are tight and in units of each
# set's variance: metafor's own are absolute.

suppressMessages({library(metafor); library(metadat); library(jsonlite)})

methods <- c(fixed_effects = "FE", reml = "REML", ml = "ML", dl = "DL", hedges = "HE",
             hunter_schmidt = "HS", sidik_jonkman = "SJ", paule_mandel = "PM", empirical_bayes = "EB")

fit <- function(y, v, X, method, test, btt, weighted = TRUE) {
  scale <- mean(v) + var(y)
  suppressWarnings(rma.uni(y, v, mods = X, intercept = FALSE, method = method, test = test, btt = btt,
    weighted = weighted, control = list(threshold = 1e-14 * scale, tol = 1e-14 * scale,
    tau2.max = 1e4 * scale, maxiter = 100000, evtol = 1e-30)))
}

tested <- function(y, v, X, method, test, btt, weighted = TRUE) {
  r <- fit(y, v, X, method, test, btt, weighted)
  out <- list(beta = as.vector(r$beta), se = r$se, F = r$QM / (if (test == "z") length(btt) else 1))
  if (ncol(X) == 1 && all(X == 1) && method != "FE") {
    p <- predict(r)
    out$pi <- c(p$pi.lb, p$pi.ub)
  }
  out
}

one <- function(y, v, X, method) {
  btt <- if (ncol(X) == 1) 1 else if (all(X[, 1] == 1)) 2:ncol(X) else seq_len(ncol(X))
  scale <- mean(v) + var(y)
  r <- fit(y, v, X, method, "z", btt)
  out <- list(tau2 = r$tau2, Q = r$QE, I2 = r$I2, H2 = r$H2,
              logp = pchisq(r$QE, length(y) - ncol(X), lower.tail = FALSE, log.p = TRUE), btt = I(btt))
  tests <- if (method == "FE") "z" else c("knha", "adhoc", "t", "z")
  out$tests <- setNames(lapply(tests, function(t) tested(y, v, X, method, t, btt)), tests)
  if (method == "FE")
    out$equal <- tested(y, v, X, method, "z", btt, weighted = FALSE)
  if (method == "DL") {
    ci <- confint(r, control = list(tol = 1e-15 * scale, tau2.max = 1e4 * scale, maxiter = 100000))
    out$interval <- unname(ci$random["tau^2", c("ci.lb", "ci.ub")])
  }
  out
}

case <- function(name, y, v, X) {
  X <- unname(as.matrix(X))
  list(name = name, y = y, v = v, X = X,
       methods = setNames(lapply(methods, function(m) one(y, v, X, m)), names(methods)))
}

cases <- list()
add <- function(...) cases[[length(cases) + 1]] <<- case(...)

bcg <- escalc("RR", ai = tpos, bi = tneg, ci = cpos, di = cneg, data = dat.bcg)
y <- as.vector(bcg$yi); v <- as.vector(bcg$vi)
add("bcg intercept", y, v, rep(1, 13))
add("bcg ablat", y, v, cbind(1, bcg$ablat))
add("bcg ablat year", y, v, cbind(1, bcg$ablat, bcg$year))
add("bcg alloc", y, v, model.matrix(~ alloc, bcg))
add("bcg alloc, no intercept", y, v, model.matrix(~ 0 + alloc, bcg))
add("bcg alloc and ablat, no intercept", y, v, model.matrix(~ 0 + alloc + ablat, bcg))
add("bcg ablat through the origin", y, v, cbind(bcg$ablat))
add("bcg ablat and year through the origin", y, v, cbind(bcg$ablat, bcg$year - 1960))
h <- dat.hackshaw1998
add("hackshaw intercept", as.vector(h$yi), as.vector(h$vi), rep(1, nrow(h)))
add("hackshaw design year", as.vector(h$yi), as.vector(h$vi), model.matrix(~ design + year, h))
r <- dat.raudenbush1985
add("raudenbush intercept", as.vector(r$yi), as.vector(r$vi), rep(1, nrow(r)))
add("raudenbush weeks", as.vector(r$yi), as.vector(r$vi), cbind(1, r$weeks))
add("raudenbush weeks setting", as.vector(r$yi), as.vector(r$vi), model.matrix(~ weeks + setting, r))

set.seed(20240615)
for (k in c(2, 3, 4, 5, 10, 21, 40)) {
  for (tau2 in c(0, 0.5)) {
    v <- 0.2 * rchisq(k, 4) + 0.05
    y <- rnorm(k, 0.4, sqrt(v + tau2))
    add(sprintf("made k=%d tau2=%g", k, tau2), y, v, rep(1, k))
    if (k >= 5) add(sprintf("made k=%d tau2=%g, two moderators", k, tau2), y, v, cbind(1, rnorm(k), runif(k, 50, 60)))
  }
}
v <- 10^runif(15, -4, 0); y <- rnorm(15, 0.1, sqrt(v + 0.01))
add("four decades", y, v, rep(1, 15))
add("four decades, moderator", y, v, cbind(1, rnorm(15)))
v <- 0.2 * rchisq(12, 4) + 0.05; y <- rnorm(12, 0.4, sqrt(v + 0.3)); x <- rnorm(12)
add("units 1e-5", y * 1e-5, v * 1e-10, cbind(1, x))
add("units 1e5", y * 1e5, v * 1e10, cbind(1, x))

write_json(list(metafor = as.character(packageVersion("metafor")), cases = cases),
           commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE)
