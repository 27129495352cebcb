"""Charts as inline SVG: small pure functions from numbers to markup.

Colours and fonts come from the style sheet of the page, so that one chart serves light and dark. Every chart has a
`<title>` for screen readers, every mark one for the pointer. Coordinates are those of the `viewBox`.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from markupsafe import Markup

WIDTH, HEIGHT = 480, 210
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 26  # room for the labels of the axes
CLOCK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)

Format = Callable[[float], str]


def compact(value: float) -> str:
    """Return a number in at most four characters or so: 950, 1.2k, 34k, 5.6M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def line_chart(
    points: Sequence[tuple[float, float]], *, title: str, format_x: Format = compact, format_y: Format = compact
) -> Markup:
    """Return y over x, both from zero, as a line over a shaded area; x is in seconds."""
    if not points:
        return _empty(title)
    top_x, ticks_y = max(x for x, _ in points) or 1.0, _ticks(max(y for _, y in points))
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + width * x / top_x, TOP + height * (1 - y / ticks_y[-1])

    marks = [_tick_y(place(0, y)[1], format_y(y)) for y in ticks_y]
    marks += [_tick_x(place(x, 0)[0], format_x(x)) for x in _clock_ticks(top_x)]
    corners = [place(x, y) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    (first, _), (last, _), floor = corners[0], corners[-1], HEIGHT - BOTTOM
    marks.append(
        Markup('<polygon class="area" points="{:.1f},{} {} {:.1f},{}"/>').format(first, floor, path, last, floor)
    )
    marks.append(Markup('<polyline class="line" points="{}"/>').format(path))
    labels = [f"{format_x(x)}: {format_y(y)}" for x, y in points]
    marks += [_hover(corner, label, width / len(points)) for corner, label in zip(corners, labels, strict=True)]
    if len(points) == 1:
        marks.append(Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(*corners[0]))
    return _figure(title, marks)


def histogram(edges: Sequence[float], counts: Sequence[int], *, title: str, format_y: Format = compact) -> Markup:
    """Return one bar for each bin of `counts`; bin i spans `edges[i]` to `edges[i + 1]`.

    Bars are as wide as their bins, and so high that areas compare. Empty bins at the end are left out, and a last bin
    that is far wider than the one before counts as open and is drawn like that one.
    """
    used = max((i + 1 for i, count in enumerate(counts) if count), default=0)
    if not used:
        return _empty(title)
    bins = _drawn_bins(edges[: used + 1])
    narrow, total = min(stop - start for start, stop in bins), sum(counts)
    heights = [count * narrow / (stop - start) for (start, stop), count in zip(bins, counts, strict=False)]
    ticks, (low, high) = _ticks(max(heights)), (bins[0][0], bins[-1][1])
    width, height = (WIDTH - LEFT - RIGHT) / (high - low), HEIGHT - TOP - BOTTOM
    marks = [_tick_y(TOP + height * (1 - y / ticks[-1]), format_y(y)) for y in ticks]
    marks += [_tick_x(LEFT + width * (x - low), compact(x)) for x in _ticks_between(low, high)]
    for i, (start, stop) in enumerate(bins):
        upper = f"to {edges[i + 1]:,}" if edges[i + 1] == stop else "and more"
        label = f"{start:,} {upper}: {counts[i]:,} ({counts[i] / total:.1%})"
        bar, gap = height * heights[i] / ticks[-1], min(1.0, width * (stop - start) / 4)
        corner = (LEFT + width * (start - low) + gap / 2, HEIGHT - BOTTOM - bar)
        marks.append(_bar("bar", corner, (width * (stop - start) - gap, bar), label))
    if any(stop - start > narrow for start, stop in bins):
        note = Markup('<text x="{}" y="{}" text-anchor="end">height: per {}</text>')
        marks.append(note.format(WIDTH - RIGHT, TOP + 14, compact(narrow)))
    return _figure(title, marks)


def _drawn_bins(edges: Sequence[float]) -> list[tuple[float, float]]:
    bins = list(pairwise(edges))
    if len(bins) > 1 and bins[-1][1] - bins[-1][0] > 100 * (before := bins[-2][1] - bins[-2][0]):
        bins[-1] = (bins[-1][0], bins[-1][0] + before)
    return bins


def stacked_bar(parts: Sequence[tuple[str, float]], *, title: str, format_value: Format = compact) -> Markup:
    """Return one horizontal bar, cut into `parts`; part i has the class `part-i`, as has its entry of a legend."""
    total = sum(value for _, value in parts)
    if not total:
        return _empty(title, height=44)
    marks, x = [], 0.0
    for i, (label, value) in enumerate(parts):
        width = WIDTH * value / total
        text = f"{label}: {format_value(value)} ({value / total:.1%})"
        marks.append(_bar(f"part-{i}", (x, 0), (width, 44), text))
        x += width
    return _figure(title, marks, height=44, stretch=True)


def _figure(title: str, marks: Sequence[Markup], height: int = HEIGHT, *, stretch: bool = False) -> Markup:
    opening = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="{}" role="img" aria-label="{}"><title>{}</title>')
    aspect = "none" if stretch else "xMidYMid"  # "none" distorts text, so only for charts without any
    return opening.format(WIDTH, height, aspect, title, title) + Markup("").join(marks) + Markup("</svg>")


def _empty(title: str, height: int = HEIGHT // 2) -> Markup:
    text = Markup('<text class="none" x="{}" y="{}" text-anchor="middle">no data</text>')
    return _figure(title, [text.format(WIDTH // 2, height // 2 + 4)], height)


def _bar(kind: str, corner: tuple[float, float], size: tuple[float, float], label: str) -> Markup:
    rect = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
    return rect.format(kind, *corner, *size, label)


def _tick_y(y: float, label: str) -> Markup:
    line = Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(LEFT, y, WIDTH - RIGHT, y)
    return line + Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 8, y + 4, label)


def _tick_x(x: float, label: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x, HEIGHT - 8, label)


def _hover(corner: tuple[float, float], label: str, width: float) -> Markup:
    band = Markup('<rect x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
        corner[0] - width / 2, TOP, width, HEIGHT - TOP - BOTTOM
    )
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(*corner)
    return Markup('<g class="hover"><title>{}</title>{}{}</g>').format(label, band, dot)


def _ticks(top: float) -> list[float]:
    """Return three to six round numbers from zero to `top` or just above it."""
    if top <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(top))
    step = next(power * factor for factor in (0.2, 0.5, 1, 2) if top <= 5 * power * factor)
    return [step * i for i in range(math.ceil(top / step - 1e-9) + 1)]


def _ticks_between(low: float, high: float) -> list[float]:
    """Return the round numbers within a range, some five to eleven of them."""
    step = _ticks((high - low) / 2)[1]
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _clock_ticks(top: float) -> list[float]:
    """Return at most seven round times from zero to `top` seconds."""
    if top < 1:
        return [0.0, top]
    step = next((step for step in CLOCK_STEPS if top / step <= 6), math.ceil(top / 6 / 86400) * 86400)
    return [float(x) for x in range(0, math.floor(top) + 1, step)]
