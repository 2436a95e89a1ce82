"""open_clip models: building them, loading them again, and their features."""
