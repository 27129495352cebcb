"""What can be wrong with a dataset or an output, as an exception for each."""


class Error(Exception):
    """Any failure that this package explains in words."""


class InputError(Error, ValueError):
    """Input or options that cannot work, now or later; the message names the file, column, row or option to mend."""


class PlanChangedError(InputError):
    """An output was begun with another input or other settings."""


class BusyError(Error, RuntimeError):
    """Another run owns the output; this one may be tried again later."""


class LeaseLostError(Error, RuntimeError):
    """Another run has taken the output over while this one was cut off, so this one must not write any more."""
