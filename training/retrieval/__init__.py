"""Image retrieval with a trained model: what is found, how sure that is, and what it looks like."""
