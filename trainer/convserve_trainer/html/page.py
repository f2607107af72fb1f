"""The page: one file of HTML with everything in it, for light and dark, phones and desks."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template

from convserve_trainer.html.section import Figure, Listing, Part, Section, Table

STYLE, PAGE = "page.css", "page.html"


@dataclass(frozen=True)
class About:
    """Where a page comes from.

    Attributes:
        net: a sentence on the net.
        facts: name and value of each line of the footer.
        title: of the page.
    """

    net: str
    facts: Sequence[tuple[str, str]]
    title: str = "Convnets, live"


def page(sections: Sequence[Section], about: About) -> str:
    """Returns the page: HTML that loads nothing from anywhere."""
    contents = "".join(
        f'<li><a href="#{each.topic}">{html.escape(each.title)}</a></li>' for each in sections
    )
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in about.facts
    )
    return _text(PAGE).substitute(
        style=_text(STYLE).template,
        title=html.escape(about.title),
        net=_paragraph(about.net),
        contents=contents,
        sections="\n".join(map(_section, sections)),
        facts=facts,
    )


def _text(name: str) -> Template:
    return Template(resources.files(__package__).joinpath(name).read_text("utf-8"))


def _section(section: Section) -> str:
    parts = "\n".join(map(_part, section.parts))
    title = html.escape(section.title)
    return f'<section id="{section.topic}">\n<h2>{title}</h2>\n{parts}\n</section>'


def _part(part: Part) -> str:
    if isinstance(part, Figure):
        return _figure(part)
    if isinstance(part, Listing):
        return _listing(part)
    return _table(part) if isinstance(part, Table) else _paragraph(part)


def _paragraph(text: str) -> str:
    marked = re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text))
    return f"<p>{marked}</p>"


def _listing(listing: Listing) -> str:
    label = html.escape(listing.caption)
    return (
        f'<figure class="listing"><pre role="region" tabindex="0" aria-label="{label}"><code>'
        f"{html.escape(listing.text)}</code></pre><figcaption>{label}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.head)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{html.escape(table.caption)}</caption>"
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{html.escape(table.caption)}">'
        f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _figure(figure: Figure) -> str:
    kind = "png" if figure.photographic else "svg+xml"
    light, dark = (
        f"data:image/{kind};base64,{base64.b64encode(content).decode()}" for content in figure.shown
    )
    caption = html.escape(figure.caption)
    return (
        f'<figure><div class="drawn" role="region" tabindex="0" aria-label="{caption}">'
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{html.escape(figure.alt)}"></picture></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
