"""The one exception class of the package, and the kind of it that a training must not survive."""


class ConfshiftError(Exception):
    """Something confshift was given can't be used; the message names it, its value and the remedy."""


class Refusal(ConfshiftError):  # noqa: N818
    """The call itself is at fault (a bad argument, another validation set), not the disk or the machine.

    Internal: users catch :class:`ConfshiftError`. A training goes on without a checkpoint that could not be
    saved, but ends where what it asked for can't be meant.
    """
