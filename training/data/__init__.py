"""From a target store's rows to batches: images, tokens and the row numbers that every step needs."""
