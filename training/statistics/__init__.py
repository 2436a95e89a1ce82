"""Statistics for everyone who reports: intervals over cases, paired tests, seed variance.

Where a p value comes from:

p value                                       function
of a configuration, whatever the seed (t)     ``paired_test`` (``seed_variance``)
of single runs or of targets (sign flips)     ``paired_tests.compare_all``
corrected for several tests (Holm)            ``paired_tests.holm``
"""

from training.statistics.seed_variance import paired_test

__all__ = ["paired_test"]
