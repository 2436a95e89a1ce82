"""Looking at targets: explanations, neighbourhoods, plots and the target card."""
