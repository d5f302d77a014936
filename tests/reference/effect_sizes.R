# Numbers of R for tests/stats/test_noncentral.py: limits of noncentrality, Hedges' g and partial eta squared.
#
#   Rscript tests/reference/effect_sizes.R tests/reference/effect_sizes.json
#
# Needs jsonlite and effectsize. Limits are those of base R's pt(ncp=), inverted by uniroot; of F by the Poisson
# mixture of pbeta, as pf(ncp=) itself stops at 1e-9.

suppressMessages({library(jsonlite); library(effectsize)})

t_limit <- function(t, df, p) {
  if (t < 0) return(-t_limit(-t, df, 1 - p))
  uniroot(function(d) pt(t, df, d) - p, c(-10, 37), tol = 1e-13, maxiter = 10000)$root
}
cdf_f <- function(f, q, df, l) {
  j <- 0:2000
  sum(dpois(j, l / 2) * pbeta(q * f / (q * f + df), q / 2 + j, df / 2))
}
f_limit <- function(f, q, df, p) {
  if (pf(f, q, df) <= p) return(0)
  uniroot(function(l) cdf_f(f, q, df, l) - p, c(0, 1000), tol = 1e-13, maxiter = 10000)$root
}
stopifnot(abs(cdf_f(7, 3, 20, 9) - pf(7, 3, 20, 9)) < 1e-8)

t <- expand.grid(t = c(-4.2, -0.3, 0, 0.7, 2.1, 5.5, 12), dof = c(2, 4, 14, 29, 150))
t$lower <- mapply(t_limit, t$t, t$dof, 0.975)
t$upper <- mapply(t_limit, t$t, t$dof, 0.025)
f <- expand.grid(f = c(0.02, 0.6, 2.5, 4, 11, 40), rows = c(1, 2, 4), dof = c(6, 27, 120))
f$lower <- mapply(f_limit, f$f, f$rows, f$dof, 0.975)
f$upper <- mapply(f_limit, f$f, f$rows, f$dof, 0.025)

one <- c(0.61, -0.2, 1.4, 0.93, 0.35, 0.02, 1.1, 0.77, -0.45, 0.88)
two <- c(0.12, -0.6, 0.9, 0.03, -0.85, 0.4, -0.31)
exact <- function(d) list(t_limit(d$t, d$df, 0.975) * d$by, t_limit(d$t, d$df, 0.025) * d$by)
t1 <- t.test(one)
t2 <- t.test(one, two, var.equal = TRUE)
out <- list(
  effectsize = as.character(packageVersion("effectsize")), t = t, f = f, one = one, two = two,
  # type 3: the exact factor by the gamma function
  one_sample = list(g = hedges_g(one)$Hedges_g,
                    limits = exact(list(t = unname(t1$statistic), df = 9, by = 1 / sqrt(10)))),
  one_of_effectsize = cohens_d(one)[c("CI_low", "CI_high")],
  two_samples = list(g = hedges_g(one, two)$Hedges_g,
                     limits = exact(list(t = unname(t2$statistic), df = 15, by = sqrt(1 / 10 + 1 / 7)))),
  two_of_effectsize = cohens_d(one, two)[c("CI_low", "CI_high")],
  eta2 = F_to_eta2(5.3, 2, 27)$Eta2_partial
)
write_json(out, commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE)
