"""The page itself: what is told becomes HTML with all images inside."""

import base64
import html
from dataclasses import dataclass, field

STYLE = """
:root { --ink: #222; --muted: #666; --line: #ddd; --accent: #0072B2; }
* { box-sizing: border-box; }
body { font: 15px/1.5 "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; color: var(--ink); margin: 0 auto;
       max-width: 1180px; padding: 28px 24px 60px; background: white; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 34px 0 10px; border-bottom: 1px solid var(--line); padding-bottom: 4px; }
.lead { color: var(--muted); margin: 0 0 4px; }
.notice { color: #D55E00; margin: 2px 0; }
.classes { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 16px 12px; }
figure { margin: 0; text-align: center; break-inside: avoid; }
figure .picture { position: relative; display: block; }
figure img { width: 100%; max-width: 160px; display: block; margin: 0 auto; background: #eee; }
figure .missing { aspect-ratio: 1; display: grid; place-items: center; background: #eee; color: var(--muted);
                  padding: 8px; font-size: 12px; }
figure .number { position: absolute; left: 4px; top: 4px; background: #333c; color: white; font-size: 11px;
                 padding: 0 5px; border-radius: 2px; }
figcaption { font-size: 13px; line-height: 1.35; margin-top: 4px; }
figcaption span { color: var(--muted); display: block; }
.plot img { width: 100%; max-width: 820px; display: block; }
table { border-collapse: collapse; font-size: 14px; }
td, th { text-align: left; vertical-align: top; padding: 3px 22px 3px 0; border-bottom: 1px solid #eee;
         overflow-wrap: anywhere; }
th { font-weight: normal; color: var(--muted); white-space: nowrap; }
a { color: var(--accent); }
li { margin-bottom: 4px; }
@media print { body { max-width: none; padding: 0; } }
"""


@dataclass(frozen=True)
class ReportClass:
    """One class in the report.

    Attributes
    ----------
    number : int
    picture : bytes or str
        PNG of the average, or why there is none.
    lines : tuple of str
        Written under it, the first in black.
    """

    number: int
    picture: bytes | str
    lines: tuple[str, ...]


@dataclass
class Report:
    """All that a report tells.

    Attributes
    ----------
    title : str
    lead : list of str
        Lines under the title.
    notices : list of str
        What a reader must know, in colour.
    classes : list of ReportClass
        In the order of the page.
    plots : list of (str, bytes)
        Headings and PNGs.
    tables : list of (str, list of (str, str))
        Headings and rows of name and value.
    citations : list of (str, str)
        Text and address, which may be empty.
    """

    title: str
    lead: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    classes: list[ReportClass] = field(default_factory=list)
    plots: list[tuple[str, bytes]] = field(default_factory=list)
    tables: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    citations: list[tuple[str, str]] = field(default_factory=list)


def render_report(report: Report) -> str:
    """The report as one HTML page without links to other files."""
    parts = [f"<h1>{_text(report.title)}</h1>", *(f'<p class="lead">{_text(line)}</p>' for line in report.lead),
             *(f'<p class="notice">{_text(line)}</p>' for line in report.notices)]
    if report.classes:
        parts += ["<h2>Class averages</h2>", '<div class="classes">', *map(_class, report.classes), "</div>"]
    for heading, picture in report.plots:
        parts += [f"<h2>{_text(heading)}</h2>", f'<div class="plot">{_image(picture, heading)}</div>']
    for heading, rows in report.tables:
        body = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows)
        parts += [f"<h2>{_text(heading)}</h2>", f"<table>{body}</table>"]
    if report.citations:
        parts += ["<h2>How to cite</h2>", "<ul>", *map(_citation, report.citations), "</ul>"]
    body = "\n".join(parts)
    return (f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(report.title)}</title>\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>\n'
            f"<body>\n{body}\n</body>\n</html>\n")


def _class(entry: ReportClass) -> str:
    picture = f'<div class="missing">{_text(entry.picture)}</div>' if isinstance(entry.picture, str) \
        else _image(entry.picture, f"Average of class {entry.number}")
    first, *others = entry.lines or ("",)
    caption = _text(first) + "".join(f"<span>{_text(line)}</span>" for line in others if line)
    return (f'<figure><div class="picture">{picture}<span class="number">{entry.number}</span></div>'
            f"<figcaption>{caption}</figcaption></figure>")


def _citation(citation: tuple[str, str]) -> str:
    text, address = citation
    if not address.startswith(("http://", "https://")):
        return f"<li>{_text(text)}</li>"
    return f'<li><a href="{html.escape(address, quote=True)}">{_text(text)}</a></li>'


def _image(png: bytes, name: str) -> str:
    return f'<img alt="{_text(name)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'


def _text(text: str) -> str:
    return html.escape(str(text), quote=True)
