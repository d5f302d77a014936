# Cluster-robust (CR2) tests: Rscript tests/reference/clubsandwich.R tests/reference/clubsandwich.json
suppressMessages({library(clubSandwich); library(jsonlite)})

cases <- list()
add <- function(name, formula, data, tests) {
  fit <- lm(formula, data)
  matrix <- model.matrix(fit)
  stopifnot(ncol(matrix) == length(coef(fit)), !anyNA(coef(fit)))
  V <- vcovCR(fit, cluster = data$unit, type = "CR2")
  found <- lapply(tests(colnames(matrix)), function(C) {
    if (nrow(C) == 1) {
      one <- linear_contrast(fit, V, contrasts = C)
      list(rows = C, effect = one$Est, se = one$SE, t = one$Est / one$SE, dof = one$df)
    } else {
      all <- Wald_test(fit, constraints = C, vcov = V, test = "HTZ")
      list(rows = C, F = all$Fstat, dof1 = all$df_num, dof = all$df_denom)
    }
  })
  cases[[length(cases) + 1]] <<- list(
    name = name, y = data$y, X = unname(matrix), unit = as.integer(factor(data$unit)), tests = unname(found))
}
weights <- function(columns, ...) {  # one row per argument, each c(column = weight)
  rows <- list(...)
  C <- matrix(0, length(rows), length(columns), dimnames = list(NULL, columns))
  for (i in seq_along(rows)) C[i, names(rows[[i]])] <- rows[[i]]
  unname(C)
}
draw <- function(units, conditions, sd = 1) {
  d <- expand.grid(cond = factor(letters[1:conditions]), unit = factor(1:units))
  d$stim <- factor((as.integer(d$cond) - 1) %/% 3)
  d$group <- factor(ifelse(as.integer(d$unit) <= units %/% 2.6, "p", "q"))
  d$age <- rnorm(units, 40, 12)[as.integer(d$unit)]
  d$rt <- rnorm(nrow(d))
  d$y <- rnorm(units)[as.integer(d$unit)] + rnorm(nrow(d), 0, rep(sd, length.out = conditions))
  d$y <- d$y + as.vector(matrix(rnorm(units * 3), 3)[cbind(as.integer(d$stim), as.integer(d$unit))])
  d
}

set.seed(20250301)
three <- function(x) list(
  weights(x, c(conda = 1, condb = -1)), weights(x, c(conda = .5, condb = .5, condc = -1)),
  weights(x, c(conda = 1, condb = -1), c(condb = 1, condc = -1)))
d <- draw(12, 3, c(2, 2, .3))
add("balanced, subject columns", y ~ 0 + cond + unit, d, three)
add("balanced, between", y ~ cond + group, d, function(x) list(
  weights(x, c(groupq = 1)), weights(x, c("(Intercept)" = 1, condb = 1 / 3, condc = 1 / 3, groupq = .5)),
  weights(x, c(condb = 1)), weights(x, c(condb = 1), c(condc = 1), c(groupq = 1))))
add("balanced, within by between", y ~ cond * group, d, function(x) list(
  weights(x, c("condb:groupq" = 1)), weights(x, c("condb:groupq" = 1), c("condc:groupq" = 1))))
nine <- function(x) list(
  weights(x, c(conda = 1, condb = 1, condc = 1, condd = -1, conde = -1, condf = -1) / 3),
  weights(x, c(conda = 1, condb = -1), c(condb = 1, condd = -1)),
  do.call(weights, c(list(x), lapply(letters[2:6], function(l) setNames(c(1, -1), c("conda", paste0("cond", l)))))))
add("nine conditions", y ~ 0 + cond + unit, draw(16, 9), nine)
d <- draw(16, 9); d <- d[-sample(nrow(d), 25), ]
add("nine conditions, 25 maps missing", y ~ 0 + cond + unit, d, nine)
add("missing, between", y ~ cond + group + age, d, function(x) list(
  weights(x, c(groupq = 1)), weights(x, c(age = 1)), weights(x, c(age = 1), c(groupq = 1))))
add("missing, a covariate of maps", y ~ 0 + cond + rt + unit, d, function(x) c(nine(x), list(weights(x, c(rt = 1)))))
d <- draw(10, 3); d <- d[!(d$unit %in% c(2, 7, 9) & d$cond != "b") & !(d$unit == 4 & d$cond == "a"), ]
add("subjects of one map, subject columns", y ~ 0 + cond + unit, d, three)
add("subjects of one map, between", y ~ cond + age, d, function(x) list(
  weights(x, c(age = 1)), weights(x, c(condb = 1)), weights(x, c(condb = 1), c(condc = 1))))
d <- draw(20, 1); d$unit <- factor(1:20); d$year <- 2000 + rnorm(20, 0, 4); d$arm <- factor(rep(c("u", "v", "w"), c(4, 6, 10)))
d$y <- d$y * c(3, 1)[as.integer(d$group)]
add("each map alone, two groups", y ~ group, d, function(x) list(weights(x, c(groupq = 1)), weights(x, c("(Intercept)" = 1))))
add("each map alone, covariates", y ~ arm + year, d, function(x) list(
  weights(x, c(year = 1)), weights(x, c(armv = 1)), weights(x, c(armv = 1), c(armw = 1)),
  weights(x, c("(Intercept)" = 1, year = 2000))))
add("each map alone, the mean", y ~ 1, d, function(x) list(weights(x, c("(Intercept)" = 1))))

write_json(list(clubSandwich = as.character(packageVersion("clubSandwich")), cases = cases),
           commandArgs(TRUE)[1], digits = NA, auto_unbox = TRUE, matrix = "rowmajor")
