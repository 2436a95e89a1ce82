"""One YAML per data set; see `kg_targets.manifest`."""
