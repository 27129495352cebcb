"""Errors that the driver could not read if they were sent to it as they are."""


class TwoPartError(Exception):
    """Cannot be unpickled, as the errors of some libraries."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


class TwoPartOSError(OSError):
    """The same, of a store."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
