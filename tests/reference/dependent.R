# Models with correlated sampling errors: Rscript tests/reference/dependent.R tests/reference/dependent.json
#
# tau2 of rma.mv is polished by Newton's steps on the exact derivative of the likelihood; all else is rma.mv's own there.
suppressMessages({library(metafor); library(jsonlite)})

polish <- function(t, y, V, X, restricted) {
  scale <- mean(diag(V)); n <- length(y)
  slopes <- function(t) {
    W <- solve(V + diag(t, n)); P <- W - W %*% X %*% solve(t(X) %*% W %*% X, t(X) %*% W); u <- as.vector(P %*% y)
    A <- if (restricted) P else W
    c(sum(diag(A)) - sum(u^2), 2 * sum(u * (P %*% u)) - sum(diag(A %*% A)))
  }
  if (t < 1e-5 * scale) t <- 0
  if (t == 0 && slopes(0)[1] >= 0) return(0)
  for (step in 1:30) { s <- slopes(t); t <- t - s[1] / s[2] }
  stopifnot(t > 0, abs(slopes(t)[1]) * scale < 1e-9)
  t
}
cases <- list()
add <- function(name, R, formula = ~ 1, rows = NULL, tau = .3) {
  k <- nrow(R); d <- data.frame(map = seq_len(k), x = rnorm(k), v = runif(k, .02, .2))
  V <- diag(sqrt(d$v)) %*% R %*% diag(sqrt(d$v))
  d$y <- .3 + .1 * d$x + as.vector(t(chol(V)) %*% rnorm(k)) + tau * rnorm(k)
  X <- model.matrix(formula, d); p <- ncol(X)
  record <- function(fit, tau2) {
    one <- list(tau2 = unbox(tau2), beta = as.vector(fit$beta), se = fit$se, Q = unbox(fit$QE))
    if (!is.null(rows)) one$F <- unbox(fit$QM / length(rows))
    one
  }
  fit <- function(...) rma.mv(d$y, V, mods = X, intercept = FALSE, data = d, btt = rows, ...)
  methods <- list(fixed = record(fit(), 0))
  for (method in c("REML", "ML")) {
    free <- fit(random = ~ 1 | map, method = method)
    t <- polish(free$sigma2, d$y, V, X, method == "REML")
    best <- fit(random = ~ 1 | map, method = method, sigma2 = t)
    stopifnot(as.numeric(logLik(best)) >= as.numeric(logLik(free)) - 1e-9)
    methods[[tolower(method)]] <- record(best, t)
  }
  cases[[length(cases) + 1]] <<- list(name = unbox(name), y = d$y, v = d$v, X = unname(X), R = R,
    rows = if (is.null(rows)) list() else rows - 1L, methods = methods)
}
blocks <- function(sizes, r) {
  g <- rep(seq_along(sizes), sizes); R <- outer(g, g, function(a, b) ifelse(a == b, r, 0)); diag(R) <- 1; R
}
set.seed(20251130)
add("pairs and threes", blocks(c(2, 2, 3, 1, 1, 1, 2), .6))
add("a covariate", blocks(c(2, 2, 3, 1, 1, 1, 2), .4), ~ x, 2)
add("two covariates of no intercept", blocks(c(4, 1, 1, 3, 2), .5), ~ 0 + x + I(x^2), 1:2)
add("all maps alike", blocks(8, .8), ~ x, 2, tau = .1)
add("no heterogeneity", blocks(c(3, 3, 3), .7), tau = 0)
R <- cor(matrix(rnorm(6 * 40), 40)); add("any correlations", R, ~ x, 1:2)
write_json(list(metafor = unbox(as.character(packageVersion("metafor"))), cases = cases), commandArgs(TRUE)[1], digits = NA)
