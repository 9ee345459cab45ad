"""The one exception class of the package, and the kind of it that stops a training."""


class ConfshiftError(Exception):
    """An argument, a file or a model can't be used; the message names it, its value and the remedy."""


class Refusal(ConfshiftError):  # noqa: N818
    """The call itself is at fault (a bad argument, another validation set), not the disk or the machine.

    Internal: users catch :class:`ConfshiftError`. A training goes on where a checkpoint can't be saved, but
    stops where the call can't have been meant.
    """
