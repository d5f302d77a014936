# Numbers of R's metafor for tests/stream/test_peak_evidence.py: the BCG trials without each in turn.
#
#   Rscript tests/reference/leave1out.R tests/reference/leave1out.json
#
# Needs metafor, metadat and jsonlite. Tolerances are tight: metafor's own are absolute.

suppressMessages({library(metafor); library(metadat); library(jsonlite)})

bcg <- escalc("RR", ai = tpos, bi = tneg, ci = cpos, di = cneg, data = dat.bcg)
tight <- list(threshold = 1e-14, tol = 1e-14, tau2.max = 1e4, maxiter = 100000)

refit <- function(method, test, mods = ~ 1) {
  whole <- rma(yi, vi, mods = mods, data = bcg, method = method, test = test, control = tight)
  last <- length(whole$beta)
  left <- lapply(seq_len(nrow(bcg)), function(i) {
    r <- rma(yi, vi, mods = mods, data = bcg[-i, ], method = method, test = test, control = tight)
    list(effect = r$beta[last], se = r$se[last], dof = if (test == "z") NULL else r$ddf, tau2 = r$tau2,
         log_p = pt(-abs(r$zval[last]), if (test == "z") Inf else r$ddf, log.p = TRUE))
  })
  if (length(whole$beta) == 1) {  # metafor's own function agrees, where it speaks
    own <- leave1out(whole)
    stopifnot(all.equal(own$estimate, sapply(left, `[[`, "effect")), all.equal(own$se, sapply(left, `[[`, "se")))
  }
  list(method = method, test = test, moderator = length(whole$beta) > 1, effect = whole$beta[last],
       se = whole$se[last], tau2 = whole$tau2, Q = whole$QE, I2 = whole$I2,
       weight = unname(weights(whole)), fitted = unname(fitted(whole)),
       # of test = "z" metafor's is normal, ours t as with the other tests (Higgins et al. 2009)
       prediction = if (length(whole$beta) == 1 && test != "z") with(predict(whole), c(pi.lb, pi.ub)) else NULL,
       without = left)
}

out <- list(metafor = as.character(packageVersion("metafor")), y = as.vector(bcg$yi), v = as.vector(bcg$vi),
            ablat = bcg$ablat,
            fits = list(refit("REML", "knha"), refit("DL", "knha"), refit("REML", "z"), refit("FE", "z"),
                        refit("REML", "knha", ~ ablat)))
write_json(out, commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE, null = "null")
