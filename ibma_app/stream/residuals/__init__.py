"""The residuals of a fit over the mask: their smoothness, and what tests take for granted of them."""
