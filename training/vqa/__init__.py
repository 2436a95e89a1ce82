"""Medical visual question answering: data sets, protocols, leaks, scores and floors. Nothing here needs torch."""
