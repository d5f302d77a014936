# Random intercepts by REML: Rscript tests/reference/lmertest.R tests/reference/lmertest.json
#
# lme4's optimisers stop early: the variance ratio is found again on its own criterion. lmerTest's derivatives are
# numerical, so that its degrees of freedom are good to about 1e-6.
suppressMessages({library(lmerTest); library(jsonlite)})

cases <- list()
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = .2, rhoend = 1e-12, maxfun = 1e5),
                     check.conv.singular = "ignore", check.conv.grad = "ignore", check.conv.hess = "ignore")
add <- function(name, formula, data, tests) {
  mixed <- update(formula, . ~ . + (1 | unit))
  environment(mixed) <- environment()
  fit <- lmer(mixed, data, control = tight)
  criterion <- lme4::lmer(mixed, data, devFunOnly = TRUE)
  theta <- getME(fit, "theta")
  if (theta > 1e-4) {
    score <- function(t, h = 1e-5 * t) (criterion(t + h) - criterion(t - h)) / (2 * h)
    found <- uniroot(score, theta * c(.98, 1.02), tol = 1e-14, extendInt = "yes")$root
    stopifnot(abs(found / theta - 1) < 1e-3, criterion(found) <= criterion(theta) + 1e-9)
    theta <- found
    fit <- lmer(mixed, data, control = tight, start = list(theta = theta))
  }
  sigma2 <- sigma(fit)^2
  columns <- names(fixef(fit))
  found <- lapply(tests(columns), function(C) {
    if (nrow(C) == 1) {
      one <- contest1D(fit, as.vector(C))
      list(rows = C, effect = one$Estimate, se = one[["Std. Error"]], t = one[["t value"]], dof = one$df)
    } else {
      all <- contestMD(fit, C)
      list(rows = C, F = all[["F value"]], dof1 = all$NumDF, dof = all$DenDF)
    }
  })
  cases[[length(cases) + 1]] <<- list(
    name = name, y = data$y, X = unname(getME(fit, "X")), unit = as.integer(factor(data$unit)), ratio = theta^2,
    sigma2 = sigma2, tests = unname(found))
  cat(sprintf("%-50s ratio %.8g\n", name, theta^2))
}
weights <- function(columns, ...) {  # one row per argument, each c(column = weight)
  rows <- list(...)
  C <- matrix(0, length(rows), length(columns), dimnames = list(NULL, columns))
  for (i in seq_along(rows)) { stopifnot(names(rows[[i]]) %in% columns); C[i, names(rows[[i]])] <- rows[[i]] }
  unname(C)
}
draw <- function(units, visits, tau = 1) {
  d <- expand.grid(visit = factor(seq_len(visits)), unit = factor(seq_len(units)))
  i <- as.integer(d$unit)
  d$group <- factor(ifelse(i <= units / 2.6, "p", "q"))
  d$age <- rnorm(units, 40, 12)[i]
  d$time <- as.integer(d$visit) - 1 + runif(nrow(d), -.3, .3)
  d$y <- tau * rnorm(units)[i] + rnorm(nrow(d)) + .5 * d$time + .02 * d$age
  d
}
drop <- function(d, share) d[-sample(nrow(d), round(share * nrow(d))), ]
all_tests <- function(x) list(
  weights(x, c("(Intercept)" = 1)), weights(x, c(visit2 = 1)), weights(x, c(visit3 = 1, visit2 = -1)),
  weights(x, c(groupq = 1)), weights(x, c("visit2:groupq" = 1)), weights(x, c(visit2 = 1), c(visit3 = 1)),
  weights(x, c("visit2:groupq" = 1), c("visit3:groupq" = 1)), weights(x, c(groupq = 1), c(visit2 = 1)))
slopes <- function(x) list(
  weights(x, c("(Intercept)" = 1)), weights(x, c(time = 1)), weights(x, c(age = 1)), weights(x, c("time:groupq" = 1)),
  weights(x, c(groupq = 1), c("time:groupq" = 1)), weights(x, c(time = 1), c(age = 1), c("time:groupq" = 1)))
mean_alone <- function(x) list(weights(x, c("(Intercept)" = 1)))

set.seed(20260117)
add("balanced", y ~ visit * group, draw(14, 3), all_tests)
add("a third missing", y ~ visit * group, drop(draw(20, 3), 1 / 3), all_tests)
add("slopes, unbalanced", y ~ time * group + age, drop(draw(16, 5), .3), slopes)
add("two visits", y ~ visit + group, draw(10, 2), function(x) list(
  weights(x, c(visit2 = 1)), weights(x, c(groupq = 1)), weights(x, c(visit2 = 1), c(groupq = 1))))
d <- draw(18, 3); d <- d[d$visit == 1 | as.integer(d$unit) <= 5, ]
add("one visit for most", y ~ time + group, d, function(x) list(
  weights(x, c("(Intercept)" = 1)), weights(x, c(time = 1)), weights(x, c(groupq = 1)),
  weights(x, c(time = 1), c(groupq = 1))))
add("mean, balanced", y ~ 1, draw(12, 4), mean_alone)
add("mean, unbalanced", y ~ 1, drop(draw(12, 6, 2), .5), mean_alone)
d <- draw(14, 3, 0); d$y <- d$y - ave(d$y, d$unit)
add("no variance between units", y ~ visit * group, d, all_tests)
d <- drop(draw(15, 4, 0), .3); d$y <- d$y - ave(d$y, d$unit) + .01 * rnorm(nrow(d))
add("no variance between units, unbalanced", y ~ time * group + age, d, slopes)
add("nearly all variance between units", y ~ time * group + age, drop(draw(16, 4, 30), .25), slopes)
add("hardly any variance between units", y ~ 1, drop(draw(300, 3, .3), .2), mean_alone)
d <- draw(6, 8); d <- d[!(d$unit == 6 & d$visit != 1), ]
add("few units, one of them with a single map", y ~ time, d, function(x) list(
  weights(x, c("(Intercept)" = 1)), weights(x, c(time = 1)), weights(x, c("(Intercept)" = 1), c(time = 1))))
write_json(list(lme4 = as.character(packageVersion("lme4")), lmerTest = as.character(packageVersion("lmerTest")),
                cases = cases), commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE)
