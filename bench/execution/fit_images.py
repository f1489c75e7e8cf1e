"""What kernel padding `fit` is fitted on: unlabelled images, never those that are audited.

Built-in ones by default: dead leaves of a stream of their own. Or a folder of the user's, of which
`FITTED` are taken, a seeded sample, or all where there are fewer. Their bytes then go into the keys
and settings of the records of `fit`, and of no others. A file with the bytes of one that is audited
is an error, whatever its name: the fit would have seen the exam. Only whole files are compared; two
pictures of one scene are the user's to keep apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...adapters.errors import InputError, PerimetryError
from ..records.hashing import file_sha256, images_identity
from ..records.record import FIT_KEY
from .settings import FIT_DEFAULT

if TYPE_CHECKING:
    from ...suites.images import ImageSet
    from .settings import Settings


FITTED = 24


FIT_STREAM = 1_000_003


def open_fit_images(settings: Settings) -> ImageSet:
    """The images that kernel padding `fit` may see. Raises `InputError`."""
    from ...suites.images import BUILT_IN, open_images

    name = settings.fit_images
    seed = settings.seed + (FIT_STREAM if name in BUILT_IN else 0)
    try:
        return open_images(name, FITTED, seed)
    except (PerimetryError, OSError) as error:
        raise InputError(f"images to fit on: {error}") from error


def fit_settings(settings: Settings) -> dict[str, str]:
    """What the records of `fit` hold in their settings of the images it was fitted on.

    Raises `InputError` when one of them cannot be read, or is audited.
    """
    from ...adapters.input_spec import InputSpec

    if settings.fit_images == FIT_DEFAULT:
        return {}
    found = open_fit_images(settings)
    if found.files:
        found.load(InputSpec(32, 32))  # a broken file must not show after hours of measuring
        _check_unseen(found, settings)
    return {FIT_KEY: images_identity(found)}


def _check_unseen(found: ImageSet, settings: Settings) -> None:
    """Raise `InputError` when a file of `found` is among the audited images."""
    from ...suites.images import open_images

    audited = open_images(settings.images, settings.count, settings.seed)
    seen = {file_sha256(path) for path in audited.files}
    both = [path.name for path in found.files if file_sha256(path) in seen]
    if both:
        names = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
        raise InputError(
            f"{len(both)} of the {found.count} images to fit on from {settings.fit_images!r} are "
            f"audited, too ({names}): what is fitted to the images it is measured on looks better "
            "than it is; give a folder of others"
        )
