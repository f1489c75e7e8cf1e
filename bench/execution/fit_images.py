"""The unlabelled images that kernel padding `fit` is fitted on; never the audited ones.

By default they are built in: dead leaves from a separate random stream. A folder of the user gives
a seeded sample of `FITTED` images, or all if there are fewer; the hash of their bytes is then part
of the keys and settings of the records of `fit` alone. A file with the same bytes as an audited one
is an error, whatever its name: the fit would have used the audit images (data leakage). Only whole
files are compared; keeping different pictures of one scene apart is up to the user.
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
    """The images that kernel padding `fit` is fitted on. Raises `InputError`."""
    from ...suites.images import BUILT_IN, open_images

    name = settings.fit_images
    seed = settings.seed + (FIT_STREAM if name in BUILT_IN else 0)
    try:
        return open_images(name, FITTED, seed)
    except (PerimetryError, OSError) as error:
        raise InputError(f"images to fit on: {error}") from error


def fit_settings(settings: Settings) -> dict[str, str]:
    """The entry about the images of `fit` in the settings of its records.

    Raises `InputError` when one of them cannot be read, or is audited.
    """
    if settings.fit_images == FIT_DEFAULT:
        return {}
    found = open_fit_images(settings)
    if found.files:
        found.check()  # a broken file must not show after hours of measuring
        _check_unseen(found, settings)
    return {FIT_KEY: images_identity(found)}


def _check_unseen(found: ImageSet, settings: Settings) -> None:
    """Raise `InputError` when a file of `found` is among the audited images."""
    audited = settings.open_images()
    seen = {file_sha256(path) for path in audited.files}
    both = [path.name for path in found.files if file_sha256(path) in seen]
    if both:
        names = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
        raise InputError(
            f"{len(both)} of the {found.count} images to fit on from {settings.fit_images!r} are "
            f"audited too ({names}), which would make the result look better than it is; expected "
            "a folder of other images"
        )
