"""Statistics for everyone who reports: intervals over cases, paired tests, seed variance."""
