# Cluster-robust tests of random intercepts: Rscript tests/reference/lmer_sandwich.R tests/reference/lmer_sandwich.json
#
# Of the data, designs and tests of lmertest.json (which is read from the same folder), each at its variance ratio; the
# fitted covariance is the working model.
suppressMessages({library(lme4); library(clubSandwich); library(jsonlite)})

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
  robust <- tryCatch(vcovCR(fit, cluster = data$unit, type = "CR2"), error = function(problem) NULL)
  tests <- lapply(case$tests, function(one) {
    C <- as_matrix(one$rows)
    if (is.null(robust)) return(NULL)
    if (nrow(C) == 1) {
      found <- linear_contrast(fit, vcov = robust, contrasts = C, test = "Satterthwaite")
      return(list(t = found$Est / found$SE, se = found$SE, dof = found$df))
    }
    found <- tryCatch(Wald_test(fit, constraints = C, vcov = robust, test = "HTZ"), error = function(problem) NULL)
    if (is.null(found)) NULL else list(F = found$Fstat, dof = found$df_denom)
  })
  cat(sprintf("%-50s ratio %.8g, tests %d\n", case$name, case$ratio, sum(!sapply(tests, is.null))))
  list(name = case$name, tests = tests)
})
write_json(list(lme4 = as.character(packageVersion("lme4")), clubSandwich = as.character(packageVersion("clubSandwich")),
                cases = cases), commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE, null = "null")
