"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """Bad input. The message is a single line that names the thing and the remedy; commands print just that."""
