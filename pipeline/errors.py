"""What a person can put right, and the exit code that says which kind it was."""


class UserError(ValueError):
    """A mistake with a remedy: the command line prints its message, without a traceback, and exits.

    Args:
        message: where, what was found, what is allowed, what to do.
        exit_code: overrides the class's own.
    """

    exit_code = 1

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(UserError):
    """The command line or the recipe asks for something that cannot be."""

    exit_code = 2


class InputError(UserError):
    """The data that a recipe names is missing, broken or not what the recipe says."""

    exit_code = 3


class DamagedRunError(InputError):
    """A file of a run directory is not what a run wrote there; the message says what to remove."""


class EnvironmentFailure(UserError):
    """The machine refuses: a full disk, a folder that cannot be written, a run directory in use."""

    exit_code = 4
