"""The exceptions that reach the user."""


class LotteryError(Exception):
    """An error with its remedy, shown without a traceback. The message says what was given, what is
    allowed, where, and what to do."""


class Interrupted(Exception):
    """The run was told to stop, and its progress is saved."""
