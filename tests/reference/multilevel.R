# Multilevel models: Rscript tests/reference/multilevel.R tests/reference/multilevel.json
#
# rma.mv finds both variances to about 1e-6 of their scale (its optimisers compare likelihoods, which are flat to 1e-16
# there). They are polished by Newton's steps on the exact derivatives of the restricted likelihood; coefficients, errors
# and tests are then rma.mv's own at these variances, and their likelihood is at least that of rma.mv's optimum.
suppressMessages({library(metafor); library(clubSandwich); library(jsonlite)})

derivatives <- function(s, y, v, X, Z) {
  V <- diag(v + s[2]) + s[1] * tcrossprod(Z); W <- solve(V)
  P <- W - W %*% X %*% solve(t(X) %*% W %*% X, t(X) %*% W)
  G <- list(tcrossprod(Z), diag(length(y)))
  PG <- lapply(G, function(g) P %*% g); u <- as.vector(P %*% y)
  gradient <- sapply(1:2, function(i) sum(diag(PG[[i]])) - sum(u * (G[[i]] %*% u)))
  hessian <- outer(1:2, 1:2, Vectorize(function(i, j)
    2 * sum((G[[i]] %*% u) * (P %*% G[[j]] %*% u)) - sum(diag(PG[[i]] %*% PG[[j]]))))
  list(gradient = gradient, hessian = hessian)
}
polish <- function(s, y, v, X, Z) {
  scale <- mean(v); free <- s > 1e-5 * scale; s[!free] <- 0
  for (step in 1:100) {
    at <- derivatives(s, y, v, X, Z)
    free <- free | at$gradient < 0
    if (!any(free)) break
    go <- numeric(2); go[free] <- -solve(at$hessian[free, free], at$gradient[free])
    wrong <- free & s == 0 & go < 0
    if (any(wrong)) { free[wrong] <- FALSE; go[wrong] <- 0; go[free] <- -solve(at$hessian[free, free], at$gradient[free]) }
    size <- min(1, ifelse(go < 0, s / -go, 1))
    s <- pmax(s + size * go, 0); if (size < 1) { s[s < 1e-12 * scale] <- 0; free <- s > 0 }
  }
  at <- derivatives(s, y, v, X, Z)
  stopifnot(all(abs(at$gradient[free]) * scale < 1e-9), all(at$gradient[!free] >= 0))
  s
}
number <- function(x) if (length(x) == 1) unbox(unname(x)) else unname(x)

cases <- list()
add <- function(name, d, formula = ~ 1, F = NULL, unit = 1) {  # unit: clubSandwich takes small variances for 0
  X <- model.matrix(formula, d); p <- ncol(X); Z <- model.matrix(~ 0 + factor(d$cluster))
  d$map <- seq_len(nrow(d))
  fit <- function(sigma2 = c(NA, NA), ...) rma.mv(yi = d$y, V = d$v, mods = X, intercept = FALSE, sigma2 = sigma2,
    random = ~ 1 | cluster/map, data = d, test = "t", dfs = "contain", btt = F, ...)
  free <- suppressWarnings(fit())
  if (length(unique(d$cluster)) == nrow(d)) {  # one map per cluster: only the sum is known; all between here
    one <- rma.uni(d$y, d$v, mods = X, intercept = FALSE, method = "REML", control = list(threshold = 1e-14, maxiter = 1e4))
    s <- c(one$tau2, 0)
  } else s <- polish(free$sigma2, d$y, d$v, X, Z)
  best <- suppressWarnings(fit(s))
  stopifnot(as.numeric(logLik(best)) >= as.numeric(logLik(free)) - 1e-9)
  W <- diag(1 / d$v); P <- W - W %*% X %*% solve(t(X) %*% W %*% X, t(X) %*% W)
  typical <- (nrow(d) - p) / sum(diag(P))
  found <- list(
    name = unbox(name), y = d$y, v = d$v, X = unname(X), cluster = as.integer(factor(d$cluster)) - 1L,
    tau2 = number(s[1]), omega2 = number(s[2]), beta = as.vector(best$beta), se = best$se, dof = unname(best$ddf),
    Q = number(best$QE), i2 = 100 * s / (sum(s) + typical))
  if (unit != 1) { d$y <- d$y / unit; d$v <- d$v / unit^2; best <- suppressWarnings(fit(s / unit^2)) }
  V <- vcovCR(best, cluster = d$cluster, type = "CR2")
  robust <- lapply(seq_len(p), function(j) {
    one <- linear_contrast(best, V, contrasts = matrix(replace(numeric(p), j, 1), 1))
    list(effect = unbox(unname(one$Est * unit)), se = unbox(unname(one$SE * unit)), dof = number(one$df))
  })
  found$robust <- robust
  if (!is.null(F)) {
    wald <- Wald_test(best, constraints = diag(p)[F, , drop = FALSE], vcov = V, test = "HTZ")
    found <- c(found, list(rows = F - 1L, F = number(best$QM), F_dof = number(best$QMdf[2]),
      robust_F = number(wald$Fstat), robust_F_dof = number(wald$df_denom)))
  }
  cases[[length(cases) + 1]] <<- found
}
draw <- function(sizes, tau, omega, shift = .3) {
  cluster <- rep(seq_along(sizes), sizes); k <- length(cluster)
  d <- data.frame(cluster, v = runif(k, .02, .2), x = rnorm(k), z = rnorm(length(sizes))[cluster])
  d$g <- (cluster %% 2) + 0
  d$y <- shift + .1 * d$x + tau * rnorm(length(sizes))[cluster] + omega * rnorm(k) + rnorm(k, 0, sqrt(d$v))
  d
}

set.seed(20251129)
pain <- c(2, 2, 3, 4, 1, 1, 1, 2, 1, 1, 1, 2)
add("twelve clusters as of the pain studies", draw(pain, .3, .25))
add("a covariate of clusters", draw(pain, .4, .3), ~ z)
add("covariates of clusters and of maps", draw(pain, .3, .3), ~ x + z, 2:3)
add("cells of two groups", draw(pain, .3, .3), ~ 0 + factor(g), 1:2)
add("tau2 at 0", draw(pain, 0, .5))
add("omega2 at 0", draw(rep(2:4, 4), .6, 0))
add("both at 0", transform(draw(pain, 0, 0), y = .2 + .5 * (y - .3)))
add("one map per cluster", draw(rep(1, 9), .5, 0))
add("one cluster of two, others alone", draw(c(2, rep(1, 9)), .4, .3))
add("a large cluster", draw(c(15, 2, 2, 1, 3), .4, .4), ~ z)
add("large and small variances", transform(draw(pain, .3, .3), v = v * 10^runif(21, -4, 2)), ~ x)
add("small numbers", transform(draw(pain, .3, .3), y = 1e-6 * y, v = 1e-12 * v), ~ x, unit = 1e-6)
add("far from 0", transform(draw(pain, .3, .3), y = y + 1e4), ~ x)
write_json(list(metafor = unbox(as.character(packageVersion("metafor"))),
  clubSandwich = unbox(as.character(packageVersion("clubSandwich"))), cases = cases),
  commandArgs(TRUE)[1], digits = NA, pretty = FALSE)
