"""Medical visual question answering: protocols, answers, floors, scores and comparisons. Nothing here needs torch."""
