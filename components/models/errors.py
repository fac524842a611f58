"""What can go wrong when a language model is asked, whichever provider serves it."""

from collections.abc import Iterable


class ModelError(Exception):
    """
    A language model could not answer. The base of every error below.

    :param message: What happened.
    :param passing: Whether the same call may go well a moment later.
    :param told: What callers are told in its place where the message is for the log, for it names addresses.
    :param retry_after: Seconds after which the model wants to be asked again, where that is known.
    :param doubtful: Whether it may be due to what was asked, though the server calls it a fault of its own.
    """

    def __init__(
        self,
        message: str,
        passing: bool = False,
        told: str = "",
        retry_after: int | None = None,
        doubtful: bool = False,
    ) -> None:
        super().__init__(message)
        self.passing = passing
        self.told = told
        self.retry_after = retry_after
        self.doubtful = doubtful


class ModelLoadError(ModelError, RuntimeError):
    """The weights of the built-in model can't be loaded."""


class ModelUnavailableError(ModelError, ConnectionError):
    """Nothing answers where the model should be served."""


class ModelRequestError(ModelError, RuntimeError):
    """The model's server refused or broke off the request."""


class ContextLengthExceededError(ModelError, ValueError):
    """The prompt holds more tokens than the model's context."""


class InvalidGenerationError(ModelError, ValueError):
    """A message, option or JSON schema that the model can't be given."""


class GenerationTimeoutError(ModelError, TimeoutError):
    """The model did not finish in the time it was given."""


class ModelBusyError(ModelError, RuntimeError):
    """Too many calls wait for the model already, here or at its server."""


class UnknownModelError(ModelError, ValueError):
    """
    A model that this service doesn't offer.

    :param model: The name that was asked for.
    :param choices: The names that may be asked for.
    """

    def __init__(self, model: str, choices: Iterable[str]) -> None:
        self.model = model
        self.choices = sorted(choices)
        super().__init__(f"unknown model {model!r}; the choices are {', '.join(self.choices) or '(none)'}")
