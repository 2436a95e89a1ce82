"""Training and evaluation: models that learn from target stores."""
