"""Maps as PNG, SVG or PDF: scales, labels, and the change that kernel padding made in them.

Magnitudes use cividis, whose lightness rises evenly from dark to bright, also for colour-blind
readers and in grey print. Differences and signed leans use a blue-to-red scale with symmetric
limits, white at 0. How they are drawn is in `canvas`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...adapters.errors import InputError, check_name
from .canvas import DPI, FORMATS, NUMBERED, SIGNED_COLOURS, Frame, Scale, draw_scale, sheet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from .canvas import Array, Pair, Span


class MapSource(Protocol):
    """The parts of a record that a figure needs."""

    suite: str
    protocol: str
    fill: str
    settings: dict[str, Any]
    model: Any

    @property
    def maps(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """Maps by name."""

    @property
    def label(self) -> str:
        """Which record it is, for a person."""

    @property
    def file_stem(self) -> str:
        """A safe name for its files."""


LOG_DECADES = 3.0
"""How far below its peak a map is shown on a logarithmic scale."""

CLIPPED, MUCH = 99.5, 1.25
"""A scale ends at this percentile if the largest value is this many times larger, so that a few
border pixels do not use up all colours."""

MEAN_ONE = 1e-3
"""A mean this close to 1 is not written into the label."""


@dataclass(frozen=True)
class MapStyle:
    """How one kind of map is drawn.

    `scale` is `mean` (times the mean), `log` (decades below the peak), `lean` (departure from the
    mean, in % of it) or `signed` (as it is, about 0). `axes` names what rows and columns count.
    `cells` lays the stride grid over it, `phases` a finer one; `places` says that values
    stand at the places of a stimulus.
    """

    scale: str = "mean"
    axes: tuple[str, str] = ("row (pixel)", "column (pixel)")
    cells: bool = False
    phases: bool = False
    places: bool = False
    what: str = ""


_PHASES = MapStyle(axes=("row mod {rows} (pixel)", "column mod {columns} (pixel)"), phases=True)

_UNITS = MapStyle(axes=("row (unit)", "column (unit)"))

_PLACES = MapStyle(axes=("stimulus's centre, row (pixel)", "its column (pixel)"), places=True)

MAP_STYLES: Mapping[str, MapStyle] = {
    "sensitivity": MapStyle(cells=True, what="sensitivity"),
    "sensitivity_sum": MapStyle(cells=True, what="sensitivity, summed over images"),
    "path_count": MapStyle(cells=True, what="paths to the target"),
    "phase_profile": replace(_PHASES, what="sensitivity of each phase"),
    "comb_profile": replace(_PHASES, what="response of each phase"),
    "gradient_profile": replace(_PHASES, what="gradient energy of each phase"),
    "structure_profile": replace(_PHASES, what="expected energy of each phase"),
    "erf": MapStyle("log", what="effective receptive field"),
    "units": MapStyle("log", ("row of units", "column of units"), what="fields of units"),
    "mean_feature_map": replace(_UNITS, what="mean magnitude of a unit, images"),
    "constant_feature_map": replace(_UNITS, scale="lean", what="lean of a unit, plain image"),
    "blind_spots": replace(_PLACES, what="response of the target"),
    "blind_spots_logit": replace(_PLACES, what="response of the top logit"),
    "phase_profile_start": replace(_PHASES, what="sensitivity of each phase, untrained"),
    "phase_profile_end": replace(_PHASES, what="sensitivity of each phase, trained"),
    "phase_accuracy": replace(_PHASES, what="accuracy by the box's phase, all epochs"),
    "phase_contrast": replace(_PHASES, what="answer to the box by its phase"),
    "erf_start": MapStyle("log", what="effective receptive field, untrained"),
    "erf_end": MapStyle("log", what="effective receptive field, trained"),
    "positions": MapStyle(axes=("row of the block", "column of the block"), what="output change"),
}
"""By the map's name; others are drawn as magnitudes over pixels."""


@dataclass(frozen=True)
class Pictures:
    """Where and how maps are drawn: only those called `names` if any are, as `form`, with `dpi`."""

    folder: Path
    names: Sequence[str] = ()
    form: str = FORMATS[0]
    dpi: int = DPI

    def draw(self, stem: str, scale: Scale, frame: Frame) -> Path:
        """Draw one map; the path of its file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{stem}.{self.form}"
        draw_scale(scale, path, frame, self.dpi)
        return path

    def wants(self, name: str) -> bool:
        """Whether the map `name` is drawn."""
        return not self.names or name in self.names


def draw_variants(records: Sequence[MapSource], pictures: Pictures) -> list[Path]:
    """Draw the maps of all records; give the files' paths.

    Maps of one name, protocol and model have one colour scale, so that variants compare. Maps with
    other axes than (rows, columns) or (n, m, rows, columns), or with values that are not finite,
    are left out.
    """
    by_model: dict[str, list[MapSource]] = {}
    for record in records:
        by_model.setdefault(record.model.reference, []).append(record)
    return [path for own in by_model.values() for path in _draw_model(own, pictures)]


def _draw_model(records: Sequence[MapSource], pictures: Pictures) -> list[Path]:
    drawn = [(record, drawings(record)) for record in records]
    kinds: dict[tuple[str, str, str], list[Scale]] = {}
    for record, found in drawn:
        for name, (scale, _) in found.items():
            kinds.setdefault((record.suite, record.protocol, name), []).append(scale)
    paths = []
    for record, found in drawn:
        for name, (scale, frame) in found.items():
            if pictures.wants(name):
                shown = on_one_scale(scale, kinds[record.suite, record.protocol, name])
                paths.append(pictures.draw(f"{_file_name(record)}.{name}", shown, frame))
    return paths


def on_one_scale(scale: Scale, others: Sequence[Scale]) -> Scale:
    """`scale` with the ends that it has in common with `others`, among which it is."""
    low, high = min(one.low for one in others), max(one.high for one in others)
    return replace(scale, low=low, high=high)


def drawings(record: MapSource) -> dict[str, tuple[Scale, Frame]]:
    """The scale and the frame of each map of `record`, by the map's name."""
    variant = "as it is" if record.fill == "none" else f"kernel padding {record.fill}"
    found = {}
    for name, values in record.maps.items():
        look = MAP_STYLES.get(name, MapStyle())
        flat = tiled(np.asarray(values))
        if flat is not None:
            frame = _frame(record, name, look, np.shape(values), variant)
            found[name] = scaled(flat, look.scale, look.what), frame
    return found


def plot(record: MapSource, names: Sequence[str] = ()) -> Figure:
    """The maps of `record`, or those called `names`, as one figure.

    Raises `InputError` for a record without maps, `UnknownNameError` for a name it does not have.
    """
    found = drawings(record)
    if not found:
        raise InputError(
            f"{record.label} has no maps to plot; expected a finished record of a run's folder or "
            "of `audit`: packed records are without maps"
        )
    for name in names:
        check_name("map", name, found)
    return sheet([found[name] for name in names or found])


def draw_change(treated: MapSource, untreated: MapSource, pictures: Pictures) -> list[Path]:
    """Draw each map of `treated` less that of `untreated`, both over their means; give the paths.

    Maps that only one of them has, or whose shapes differ, are left out.
    """
    paths = []
    variant = f"{treated.fill} less {untreated.fill}"
    for name, values in treated.maps.items():
        scale = map_change(treated, untreated, name, "change") if pictures.wants(name) else None
        if scale is not None:
            frame = _frame(
                treated, name, MAP_STYLES.get(name, MapStyle()), np.shape(values), variant
            )
            paths.append(pictures.draw(f"{_file_name(treated)}.{name}.change", scale, frame))
    return paths


def map_change(after: MapSource, before: MapSource, name: str, what: str) -> Scale | None:
    """The map `name` of `after` less that of `before`, both over their means.

    None where one of them does not have it, or in another shape.
    """
    maps = [tiled(np.asarray(one.maps[name])) for one in (after, before) if name in one.maps]
    if len(maps) < 2 or maps[0] is None or maps[1] is None or maps[0].shape != maps[1].shape:
        return None
    change = over_mean(maps[0]) - over_mean(maps[1])
    return scaled(change, "signed", _label(what, "in means of either map"))


def tiled(values: np.ndarray[Any, Any]) -> Array | None:
    """`values` (rows, columns), or (n, m, rows, columns) laid out as one; None for other axes."""
    if values.ndim == 4:
        values = values.transpose(0, 2, 1, 3).reshape(
            values.shape[0] * values.shape[2], values.shape[1] * values.shape[3]
        )
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        return None
    return np.asarray(values, dtype=np.float64)


def over_mean(values: Array) -> Array:
    """`values` over the magnitude of their mean; a map of mean 0 as it is."""
    mean = abs(float(values.mean()))
    return values / mean if mean else values


def scaled(values: Array, scale: str, what: str) -> Scale:
    """`values` with the ends of their scale and the label of the colour bar."""
    if scale == "log":
        peak = float(values.max()) or 1.0
        shown = np.log10(np.maximum(values, peak * 10**-LOG_DECADES) / peak)
        return Scale(shown, -LOG_DECADES, 0.0, _label(what, "log10 of the peak's share"))
    if scale == "lean":
        return _signed(100 * (over_mean(values) - 1), _label(what, "% of the mean"))
    if scale == "signed" or values.min() < 0:
        return _signed(values, what)
    mean = float(values.mean()) or 1.0
    shown = values / mean
    top = max(_end(shown), 1e-12)
    unit = "times the mean" + ("" if abs(mean - 1) < MEAN_ONE else f" ({mean:.3g})")
    return Scale(shown, 0.0, top, _label(what, unit))


def _end(values: Array) -> float:
    """The largest of `values`, or a percentile if a few are much larger than the rest."""
    most, largest = float(np.percentile(values, CLIPPED)), float(values.max())
    return largest if largest <= MUCH * most or most == 0 else most


def _signed(values: Array, label: str) -> Scale:
    end = _end(np.abs(values)) or 1.0
    return Scale(values, -end, end, label, SIGNED_COLOURS)


def _label(what: str, unit: str) -> str:
    return f"{what}, {unit}" if what else unit


def _frame(
    record: MapSource, name: str, look: MapStyle, shape: tuple[int, ...], variant: str
) -> Frame:
    """Title, axes, grid and extent of one map of `record`, whose own shape is `shape`."""
    title = "\n".join(
        (record.model.reference, f"{variant}; {record.suite}:{record.protocol}, {name}")
    )
    rows, columns = (a.format(rows=shape[-2], columns=shape[-1]) for a in look.axes)
    spans = stimulus_spans(record, shape) if look.places else None
    return Frame(title, (rows, columns), *_grid(record, look, shape), spans)


def _grid(record: MapSource, look: MapStyle, shape: tuple[int, ...]) -> tuple[Pair | None, str]:
    """The size of the cells that light lines enclose, and their name in the figure."""
    if len(shape) == 4:
        return (shape[2], shape[3]), "each field"
    if look.phases:
        return (max(1, shape[0] // NUMBERED), max(1, shape[1] // NUMBERED)), ""
    profile = record.maps.get("phase_profile") if look.cells else None
    if profile is None or np.ndim(profile) != 2:
        return None, ""
    return (int(profile.shape[0]), int(profile.shape[1])), "stride cell"


def stimulus_spans(record: MapSource, shape: tuple[int, ...]) -> tuple[Span, Span] | None:
    """Pixels that the squares of a map of stimuli reach over, so that each is centred on its own.

    None where the record does not say how large the stimulus was.
    """
    from ...suites.padding.blind_spots import PER_SIDE

    spec, side = record.model.spec, record.settings.get("stimulus")
    if not spec:
        return None
    side = side or max(1, round(min(spec["height"], spec["width"]) / PER_SIDE))
    spans = []
    for name, count in zip(("height", "width"), shape, strict=True):
        before = (side - (spec[name] - side) / (count - 1)) / 2
        spans.append((before, spec[name] - before))
    return spans[0], spans[1]


def _file_name(record: MapSource) -> str:
    return record.file_stem.rpartition(".")[0]
