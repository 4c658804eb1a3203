"""The errors a user can cause, each told in one line."""


class InputError(ValueError):
    """Bad settings or input: what was got, what was expected, which file or key, what to do. Exit status 2."""


class PrunedError(Exception):
    """A hopeless trial of a search was ended early, which is no failure."""


class CasesFailedError(Exception):
    """Some cases failed, each already reported in a line of its own; the rest were finished. Exit status 1."""
