"""Med-VQA: protocols, answers, baselines, scores and comparisons. Nothing here needs torch."""
