"""Statistics for everyone who reports: intervals over cases, paired tests, seed variance.

Where a p value comes from:

p value                                       function
of these trained models (sign flips)          ``paired_tests.compare``, ``paired_tests.compare_all``
of a configuration, whatever the seed (t)     ``paired_test`` (``seed_variance``)
corrected for several tests (Holm)            ``paired_tests.holm``
"""

from training.statistics.seed_variance import paired_test

__all__ = ["paired_test"]
