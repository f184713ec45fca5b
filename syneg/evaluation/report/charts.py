"""The geometry of the page's charts; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to pixels.

    Attributes:
        low: The value at pixel `start`.
        high: The value at pixel `end`.
        start: Pixel of `low`.
        end: Pixel of `high`; below `start` for an axis that points up.
        ticks: Values that are labelled.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: list[float] = field(default_factory=list)

    def __call__(self, value: float) -> float:
        """Returns the pixel of a value, rounded to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def labels(self) -> list[tuple[float, str]]:
        """Pixel and text of each tick."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(self(tick), f"{tick:.{digits}f}") for tick in self.ticks]


def make_axis(values: Sequence[float], start: float, end: float, ticks: int = 4) -> Axis:
    """Returns an axis that covers the finite `values` and begins and ends on round numbers."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if high - low < 1e-9:
        low, high = low - 0.5 * max(abs(low), 0.01), high + 0.5 * max(abs(high), 0.01)
    raw = (high - low) / max(ticks, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # + 0.0 makes of -0.0 what a reader expects.
    marks = [i * step + 0.0 for i in range(first, last + 1)]
    return Axis(marks[0], marks[-1], start, end, marks)


@dataclass(frozen=True)
class Curve:
    """An arm's line: its name, its place in the palette and its points as SVG takes them.

    `dot` is the place of its only point, which no line would show; None where there are several.
    """

    arm: str
    colour: int
    points: str
    last: float
    dot: tuple[float, float] | None = None


@dataclass(frozen=True)
class Plot:
    """A line chart of one logged quantity over the steps or epochs."""

    title: str
    meaning: str
    x: Axis
    y: Axis
    curves: list[Curve]


def line_plot(
    title: str,
    meaning: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    colours: Mapping[str, int],
    size: tuple[float, float],
) -> Plot:
    """Returns a line chart.

    Args:
        title: Its heading.
        meaning: One sentence that says what is drawn.
        series: Arm -> (step or epoch, value) in their order.
        colours: Arm -> its place in the palette.
        size: Width and height in pixels, labels included.
    """
    width, height = size
    points = [point for line in series.values() for point in line]
    x = make_axis([0.0, *(step for step, _ in points)], 44, width - 12)
    y = make_axis([value for _, value in points], height - 22, 8)
    curves = [
        Curve(
            arm,
            colours[arm],
            " ".join(f"{x(step)},{y(value)}" for step, value in line),
            line[-1][1],
            (x(line[0][0]), y(line[0][1])) if len(line) == 1 else None,
        )
        for arm, line in series.items()
        if line
    ]
    return Plot(title, meaning, x, y, curves)
