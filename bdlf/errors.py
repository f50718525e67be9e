"""The kinds of errors that are the user's to mend."""


class InputError(ValueError):
    """Bad input. The message is a single line that names the thing and the remedy; commands print just that."""


class StorageError(InputError):
    """A file cannot be written: the disk is full, read-only, over quota or absent. Nothing written before is lost."""


class HeldError(InputError):
    """Another process holds what only one may write."""
