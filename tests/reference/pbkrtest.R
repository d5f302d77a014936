# Kenward and Roger's tests of random intercepts: Rscript tests/reference/pbkrtest.R tests/reference/pbkrtest.json
#
# Of the data, designs and tests of lmertest.json (which is read from the same folder), each at its variance ratio.
suppressMessages({library(lme4); library(pbkrtest); library(jsonlite)})

folder <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
given <- read_json(file.path(folder, "lmertest.json"))$cases
as_matrix <- function(rows) do.call(rbind, lapply(rows, unlist))
cases <- lapply(given, function(case) {
  X <- as_matrix(case$X)
  data <- list(y = unlist(case$y), X = X, unit = factor(unlist(case$unit)))
  parsed <- lFormula(y ~ 0 + X + (1 | unit), data)
  criterion <- do.call(mkLmerDevfun, parsed)
  criterion(sqrt(case$ratio))
  fit <- mkMerMod(environment(criterion), list(par = sqrt(case$ratio), fval = 0, feval = 0, conv = 0, message = ""),
                  parsed$reTrms, parsed$fr)
  stopifnot(abs(getME(fit, "theta")^2 - case$ratio) < 1e-12, abs(sigma(fit)^2 / case$sigma2 - 1) < 1e-6)
  adjusted <- vcovAdj(fit)
  tests <- lapply(case$tests, function(one) {
    C <- as_matrix(one$rows)
    found <- KRmodcomp(fit, C)
    list(F = getKR(found, "Fstat"), dof = getKR(found, "ddf"), scaling = getKR(found, "F.scaling"),
         variances = diag(as.matrix(C %*% adjusted %*% t(C))))
  })
  cat(sprintf("%-50s ratio %.8g\n", case$name, case$ratio))
  list(name = case$name, tests = tests)
})
write_json(list(lme4 = as.character(packageVersion("lme4")), pbkrtest = as.character(packageVersion("pbkrtest")),
                cases = cases), commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE)
