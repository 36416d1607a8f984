"""The exceptions that a person sees."""


class LotteryError(Exception):
    """What was given, what is allowed, where, and what to do: shown without a traceback."""


class Interrupted(Exception):
    """The run was asked to stop; what it was doing is saved."""
