"""A bar chart as SVG, written by hand: how much of its memory's peak each decoder uses."""
from xml.sax.saxutils import escape

WIDTH, ROW, BAR = 820, 26, 16
LETTER = 6.6        # pixels that a letter of the labels takes at most, on average
OURS, THEIRS, INK, GRID = "#0b6e4f", "#9aa5b1", "#1f2933", "#d9dee4"


def bars(title, rows):
    """SVG of ``rows`` (label, percent, ours, note), in the order given."""
    left   = 16 + LETTER*max(len(label) for label, *_ in rows)
    scale  = (WIDTH - left - 60)/100
    height = 60 + ROW*len(rows)
    parts  = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
              'font-size="12">',
              f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
              f'<text x="10" y="20" font-size="14" fill="{INK}">{escape(title)}</text>']
    for percent in range(0, 101, 20):
        x = left + scale*percent
        parts.append(f'<line x1="{x:.1f}" y1="32" x2="{x:.1f}" y2="{height - 22}" stroke="{GRID}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle" fill="{INK}">{percent} %</text>')
    for i, (label, percent, ours, note) in enumerate(rows):
        y = 36 + ROW*i
        parts.append(f'<text x="{left - 8:.1f}" y="{y + 13}" text-anchor="end" fill="{INK}">{escape(label)}</text>')
        parts.append(f'<rect x="{left:.1f}" y="{y}" width="{scale*percent:.1f}" height="{BAR}" '
                     f'fill="{OURS if ours else THEIRS}">'
                     f'<title>{escape(note)}</title></rect>')
        parts.append(f'<text x="{left + scale*percent + 5:.1f}" y="{y + 13}" fill="{INK}">{percent:.3g}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
