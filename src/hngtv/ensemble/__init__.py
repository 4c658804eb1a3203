"""Several runs of one arm as one model; its last steps are chosen on cases that the looking network never saw.

Each case of the training folds is looked at by the networks of its own fold alone, which did not train on it. On what
they say, post-processing, the calibration of the probability, and the rule for review are chosen. What is reported of
these choices is measured fold by fold: chosen on the other folds, looked at on this one. The ensemble itself, in which
some network has seen every one of these cases, is for new patients.
"""
