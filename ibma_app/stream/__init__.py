"""How maps reach an estimator without filling memory."""
