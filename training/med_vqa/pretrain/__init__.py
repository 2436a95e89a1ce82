"""AMiF's pre-training: aligned towers under soft labels (stage one), then a co-attention that matches (stage two)."""
