"""Curves over the steps of a run, as SVG without any library."""

from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 720, 260
_LEFT, _BOTTOM, _TOP, _RIGHT = 64, 28, 28, 12
_COLOURS = ("#2563eb", "#dc2626", "#059669")
MOST_POINTS = 500  # of a curve; of more, neighbours are averaged


def curves_svg(title: str, curves: Mapping[str, Points]) -> str:
    """An SVG element with one or several curves.

    Args:
        title: what is shown.
        curves: name -> (step, value), finite numbers; curves without points are left out.
    """
    shown = {name: _thinned(points) for name, points in curves.items() if points}
    everything = [point for points in shown.values() for point in points]
    if not everything:
        return ""
    low, high = min(y for _, y in everything), max(y for _, y in everything)
    half = max(0.5, abs(low) / 2)  # of a single value, which may be very large
    low, high = (low, high) if high > low else (low - half, high + half)
    first, last = min(x for x, _ in everything), max(x for x, _ in everything)
    last = last if last > first else first + 1

    def place(x: float, y: float) -> tuple[float, float]:
        right, down = (x - first) / (last - first), (high - y) / (high - low)
        return _LEFT + right * (WIDTH - _LEFT - _RIGHT), _TOP + down * (HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text x="{_LEFT}" y="16" font-weight="bold">{escape(title)}</text>']
    for tick in range(5):
        value, step = low + (high - low) * tick / 4, first + (last - first) * tick / 4
        (x, _), (_, y) = place(step, low), place(first, value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}" stroke="#8884"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{step:.0f}</text>')
    for number, (name, points) in enumerate(shown.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(points) == 1:
            x, y = place(*points[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        parts.append(
            f'<text x="{WIDTH - _RIGHT}" y="{16 + 14 * number}" text-anchor="end" fill="{colour}">{escape(name)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-family="system-ui, sans-serif" font-size="12" '
        f'fill="currentColor" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _thinned(points: Points) -> Points:
    count = -(-len(points) // MOST_POINTS)
    if count == 1:
        return points
    groups = [points[start : start + count] for start in range(0, len(points), count)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]
