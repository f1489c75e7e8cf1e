"""Every error perimetry raises on purpose: what was given, what was expected, what to do."""


class PerimetryError(Exception):
    """Base of all errors of this package; its text is meant for the user."""


class UnknownNameError(PerimetryError, LookupError):
    """A name (model, suite, metric, layer) that does not exist; the message offers near ones."""


class WeightsError(PerimetryError, OSError):
    """Weights that are neither cached nor reachable, or do not fit the architecture."""


class ModelFileError(PerimetryError, ValueError):
    """A model file that cannot be read, or that is not what its name says."""


class InputError(PerimetryError, ValueError):
    """Images or settings that the model or the suite cannot take."""


class NotApplicableError(PerimetryError, NotImplementedError):
    """The measurement does not apply to this model; its text is the reason, stored in a skip."""
