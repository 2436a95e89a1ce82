"""What the spaces of trained models learned: beside the targets, beside one another, query by query."""
