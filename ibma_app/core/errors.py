"""What can go wrong, each with the exit code of the BIDS execution specification."""


class IbmaError(Exception):
    """A failure told to the user in words: what is wrong, in which file, what to do.

    Parameters
    ----------
    message : str
        One or a few complete sentences, without a traceback's jargon.
    """

    code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[type["IbmaError"], tuple[str]]:
        """Survive the way back from a worker process."""
        return type(self), (self.message,)


class DatasetError(IbmaError):
    """The dataset's structure: description, names, duplicate keys, spaces or grids that do not fit."""

    code = 16


class NothingSelectedError(IbmaError):
    """The filters select nothing."""

    code = 18


class UsageError(IbmaError):
    """The command line or configuration asks for something that does not exist."""

    code = 64


class DataError(IbmaError):
    """Values or metadata: units, missing variance, covariates, rank."""

    code = 65


class InputError(IbmaError):
    """An input that was named is missing or cannot be opened."""

    code = 66


class OutputError(IbmaError):
    """OUTPUT_DIR or the work folder cannot be made or written."""

    code = 73


class ReadWriteError(IbmaError):
    """An I/O error while running: a truncated file, a full disk."""

    code = 74
