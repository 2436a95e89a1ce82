"""AMiF's model: its parts, its configuration, how it is built, saved and loaded."""
