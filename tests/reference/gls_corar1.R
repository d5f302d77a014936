# Generalised least squares with AR(1) by nlme: Rscript tests/reference/gls_corar1.R tests/reference/gls_corar1.json
suppressMessages({library(nlme); library(jsonlite)})

set.seed(20020115)
volumes <- 120; series <- 40
t <- seq_len(volumes)
x <- as.numeric(stats::filter(rep(c(1, 1, 1, 0, 0, 0, 0, 0, 0, 0), length.out = volumes), c(.2, .5, .3), sides = 1, circular = TRUE))
motion <- apply(matrix(rnorm(volumes * 6), volumes), 2, cumsum)
waves <- sapply(1:4, function(k) cos(pi / volumes * (t - .5) * k))
d <- data.frame(x = round(x, 6), m = round(motion, 6), w = round(waves, 6), t = t)
columns <- setdiff(names(d), "t")
y <- sapply(seq_len(series), function(i) round(as.numeric(arima.sim(list(ar = .4), volumes)), 5))
fits <- lapply(seq_len(series), function(i) {
  d$y <- y[, i]
  fit <- gls(reformulate(columns, "y"), d, correlation = corAR1(form = ~ t), method = "REML")
  list(rho = as.numeric(coef(fit$modelStruct$corStruct, unconstrained = FALSE)), effect = unname(coef(fit)["x"]),
       se = sqrt(vcov(fit)["x", "x"]))
})
write_json(list(
  nlme = as.character(packageVersion("nlme")), design = as.matrix(d[columns]), y = t(y),
  rho = sapply(fits, `[[`, "rho"), effect = sapply(fits, `[[`, "effect"), se = sapply(fits, `[[`, "se")),
  commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE)
