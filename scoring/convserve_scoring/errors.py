"""What a user can mend; str() is one line."""


class ScoringError(Exception):
    """The scoring cannot go on as asked.

    Attributes:
        status: exit status of the command.
    """

    status = 1


class InputError(ScoringError):
    """The command line is wrong, or a file or folder that it names is not there."""

    status = 2


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop.

    Attributes:
        status: exit status of the command: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.status = 128 + number
