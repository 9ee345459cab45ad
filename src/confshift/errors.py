"""The one exception class of the package."""

__all__ = ["ConfshiftError"]


class ConfshiftError(Exception):
    """Something confshift was given can't be used; the message names it, its value and the remedy."""
