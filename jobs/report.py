"""The page that a job leaves behind: `report.json` as one self-contained HTML file.

The page loads nothing, runs no script, and follows the light or dark preference of its reader.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobs import charts

UNKNOWN = "\N{EN DASH}"
PHASES = ("read", "tokenize", "compute", "write")  # "wait" overlaps with "compute", so it is no part of a sum


class Figure(NamedTuple):
    """A headline figure of the page."""

    label: str
    value: str
    note: str


class Part(NamedTuple):
    """A part of the workers' time."""

    label: str
    duration: str
    share: str


def render_html(report: dict[str, Any]) -> str:
    """Return the page for a report, the dict that a job writes as `report.json`."""
    timeline, lengths = report["throughput"]["timeline"], report["token_lengths"]
    phases = [(phase, report["seconds"].get(phase) or 0.0) for phase in PHASES]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            figures=_figures(report),
            rows_chart=_over_time(timeline, "rows_per_second", "Rows per second over time"),
            tokens_chart=_over_time(timeline, "tokens_per_second", "Tokens per second over time"),
            lengths_chart=charts.histogram(lengths["edges"], lengths["counts"], title="Texts by number of tokens"),
            phases_chart=charts.stacked_bar(phases, title="Time of the workers", format_value=duration),
            phases=_parts(phases),
            busy=_busy(report),
            stages=PHASES,
        )
    )


def number(value: float | None) -> str:
    """Return a number to read: whole with separators, small ones with a few digits."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def large(value: float | None) -> str:
    """Return a number of any size in short: 12,345 or 6.78 M."""
    if value is None or abs(value) < 1e6:
        return number(value)
    size, suffix = (1e9, "G") if abs(value) >= 1e9 else (1e6, "M")
    return f"{value / size:.3g} {suffix}"


def num_bytes(value: float | None) -> str:
    """Return a number of bytes in decimal units: 7.5 kB, 1.2 GB."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """Return a time span in its two largest units: 2 h 05 min, 3 min 12 s, 4.2 s, 15 ms."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"


def percent(share: float | None) -> str:
    """Return a share of one in percent."""
    return UNKNOWN if share is None else f"{share:.1%}"


def moment(iso: str | None) -> str:
    """Return an ISO time stamp in UTC, to the second; one without a zone counts as UTC."""
    if not iso:
        return UNKNOWN
    time = datetime.fromisoformat(iso)
    return f"{time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def setting(value: Any) -> str:
    """Return the value of a setting as one would write it in a config file."""
    if value is None or value in ("", []):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def excerpt(text: Any, length: int = 160) -> str:
    """Return the beginning of a text that may be of any size; what is no text, as Python shows it."""
    if text is None:
        return UNKNOWN
    shown = text if isinstance(text, str) else repr(text)
    return shown if len(shown) <= length else f"{shown[:length]} ... ({len(shown):,} characters)"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # texts, ids and messages are foreign
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (number, large, num_bytes, duration, percent, moment, setting, excerpt):
        environment.filters[filter_.__name__] = filter_
    return environment


def _over_time(timeline: list[dict[str, float]], key: str, title: str) -> Markup:
    return charts.line_chart([(point["t"], point[key]) for point in timeline], title=title, format_x=duration)


def _parts(phases: list[tuple[str, float]]) -> list[Part]:
    total = sum(seconds for _, seconds in phases)
    return [Part(phase, duration(seconds), percent(seconds / total if total else None)) for phase, seconds in phases]


def _busy(report: dict[str, Any]) -> float | None:
    """Return the share of the time from the first unit to the last in which the workers' devices computed."""
    seconds = report["seconds"]
    available = (seconds["wall"] - seconds["startup"] - seconds["shutdown"]) * len(report["workers"])
    return min(seconds["compute"] / available, 1.0) if available > 0 else None


def _figures(report: dict[str, Any]) -> list[Figure]:
    rows, tokens, throughput, seconds = (report[key] for key in ("rows", "tokens", "throughput", "seconds"))
    driver_peak = num_bytes(report["driver"]["peak_memory_bytes"] or None)
    workers = "1 worker" if len(report["workers"]) == 1 else f"{len(report['workers'])} workers"
    peak = max((worker["peak_memory_bytes"] or 0 for worker in report["workers"]), default=None)
    resumed = f", {number(rows['resumed'])} of them by earlier runs" if rows["resumed"] else ""
    figures = [
        Figure("Rows", large(rows["output"]), f"of {large(rows['input'])} read{resumed}"),
        Figure("Rows per second", number(throughput["rows_per_second"]), workers),
        Figure(
            "Tokens per second", large(throughput["tokens_per_second"]), f"{large(tokens['computed'])} tokens computed"
        ),
        Figure("Padding", percent(report["padding_share"]), f"{large(tokens['padded'])} positions computed"),
        Figure("Wall clock", duration(seconds["wall"]), f"{duration(seconds['startup'])} to start up"),
        Figure("Bad rows", number(rows["bad"]), "quarantined" if rows["bad"] else "none quarantined"),
        Figure("Peak memory", num_bytes(peak), f"per worker; driver {driver_peak}"),
        Figure("Written", num_bytes(report["bytes_out"]), f"{number(report['units']['total'])} units of work"),
    ]
    if report["cost_per_million_rows"] is not None:
        figures.append(Figure("Cost", f"${report['cost_per_million_rows']:,.2f}", "per million rows"))
    return figures
