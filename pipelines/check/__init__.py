"""`kg-targets check`: what is known of a data set before an hour is spent on it."""
