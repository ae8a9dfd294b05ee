"""All errors that are meant for the person who runs the program.

::

    StreamADError                    exit code
    ├── SettingsError                3   a setting is unknown, missing or contradicts another
    ├── BrokerError                  4   the broker cannot be reached or refuses
    │   ├── UnreachableError         4   nobody answers there; a worker that starts tries again by itself
    │   ├── TopicError               4   a topic is missing or has the wrong shape
    │   ├── FencedError              -   another worker owns the shard now; the worker rejoins by itself
    │   ├── ShardBusyError           4   a worker holds this shard
    │   └── LostRecordsError         4   records are gone that nobody has read
    ├── InputFileError               5   a file given on the command line cannot be used
    ├── StateError                   6   saved state is damaged or does not fit
    │   ├── DamagedStateError        6   it is cut off, altered or nonsense; an older one may do
    │   └── UnfitStateError          6   it was made with settings that give models of another shape
    ├── DeviceError                  7   the device asked for is not there, or computes wrongly
    └── ScarceMemoryError            9   there is too little memory

Each says what happened, where, and what to do about it. Codes 0 (done), 1 (unexpected failure),
2 (wrong usage of the command line) and 8 (`doctor` found something wrong) belong to the command line itself.
"""

from __future__ import annotations


class StreamADError(Exception):
    """Base of all errors with a message for the operator.

    Args:
        what: What happened, where, in one sentence.
        hint: What to do about it, in one sentence.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


class SettingsError(StreamADError):
    exit_code = 3


class BrokerError(StreamADError):
    exit_code = 4


class UnreachableError(BrokerError):
    """Nobody answers where the settings say that the broker is."""


class TopicError(BrokerError):
    pass


class FencedError(BrokerError):
    """The commit was refused because another worker has taken the shard over; nothing was written."""


class ShardBusyError(BrokerError):
    pass


class LostRecordsError(BrokerError):
    """Records are gone before they were read.

    Args:
        what: As ever.
        shard: Whose.
        hint: As ever.
    """

    def __init__(self, what: str, *, shard: int, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.shard = shard


class InputFileError(StreamADError):
    exit_code = 5


class StateError(StreamADError):
    exit_code = 6


class DamagedStateError(StateError):
    pass


class UnfitStateError(StateError):
    pass


class DeviceError(StreamADError):
    exit_code = 7


class ScarceMemoryError(StreamADError):
    exit_code = 9
