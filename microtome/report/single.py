"""A report, or a page of one, as one file."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from urllib.parse import quote

from microtome.errors import InputError
from microtome.report import views
from microtome.report.render import render

LIMIT = 25_000_000


def alone(page: views.Page, title: str, *, network: str = "", audit: str = "", run: str, footer: str = "") -> str:
    """A page that stands for itself, without a report around it.

    Args:
        page: what it shows.
        title: above it.
        network, audit, run: names of what it is about, and of the run that found it.
        footer: its last line; by default the run.
    """
    report = views.Report(
        title=title,
        network=network,
        dataset=audit,
        layers=(),
        pages=(page,),
        footer=footer or f"From run {run}",
    )
    return render(report, alone=True)[page.page].decode()


def with_pictures(page: str, folder: Path) -> str:
    """A page whose thumbnails are data.

    Args:
        page: HTML.
        folder: where its thumbnails are.

    Raises:
        InputError: the page, which may be somebody else's, names a file that is not below the folder's assets.
    """
    return re.sub(r'src="(assets/[^"]+)"', lambda m: f'src="{_data(folder, html.unescape(m[1]))}"', page)


def inline(folder: Path, limit: int = LIMIT) -> str:
    """All pages of a report as one HTML text: the others follow the index, thumbnails become data.

    The pages of single units, and the large pictures, are left out, and the text says so: links to a unit lead to its
    card.

    Args:
        folder: the report.
        limit: bytes that the result may have.

    Raises:
        InputError: it would be larger; names the largest parts.
    """
    index_page = folder / "index.html"
    pages = [index_page, *sorted(page for page in folder.glob("*.html") if page != index_page)]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    index = texts["index.html"]
    bodies = [f'<section class="page" id="{name}">{_main(text)}</section>' for name, text in texts.items()]
    head, tail = index[: index.index("<main")], index[index.index("</main>") + len("</main>") :]
    whole = head + '<main id="content">' + "".join(bodies) + "</main>" + tail
    whole = re.sub(r'href="([\w-]+)\.html(#[^"]*)?"', lambda m: f'href="{m[2] or "#" + m[1] + ".html"}"', whole)
    whole = with_pictures(_without_units(whole, len(list(folder.glob("unit/*/*.html")))), folder)
    if len(whole.encode()) > limit:
        parts = sorted(((len(text), name) for name, text in texts.items()), reverse=True)
        pictures = sum(file.stat().st_size for file in folder.glob("assets/**/*"))
        named = ", ".join(f"{name} {size / 1e6:.1f} MB" for size, name in parts[:3])
        raise InputError(
            f"report: one file may have {limit / 1e6:.0f} MB, got {len(whole) / 1e6:.1f} MB "
            f"(thumbnails {pictures / 1e6:.1f} MB, {named}); audit fewer layers, or share the folder"
        )
    return whole


def _without_units(whole: str, count: int) -> str:
    """Links to pages that the file has not: to the unit's card where there is one, else no link."""
    if not count:
        return whole
    anchors = set(re.findall(r'<article class="card" id="([^"]+)" data-unit=', whole))
    cards = {_page_of(html.unescape(anchor)): anchor for anchor in anchors}
    whole = re.sub(r'<a (?:[^>]*?)href="(unit/[^"]+)"', lambda m: _to_card(cards.get(html.unescape(m[1]))), whole)
    note = (
        f"This one file leaves out the pages of its {count:,} single units and the large pictures; share the folder to "
        "have them."
    )
    return whole.replace('data-listing="pages"', 'data-listing="cards"').replace("<footer>", f"<footer>{note} ", 1)


def _page_of(anchor: str) -> str:
    """Place of the page of the unit that a card's anchor names."""
    layer, _, number = anchor.rpartition("/")
    return quote(views.UnitKey(layer, int(number)).page)


def _to_card(anchor: str | None) -> str:
    return "<a" if anchor is None else f'<a href="#{anchor}"'


def _main(page: str) -> str:
    return page[page.index(">", page.index("<main")) + 1 : page.index("</main>")]


def _data(folder: Path, name: str) -> str:
    try:
        file = (folder / name).resolve()
        inside = file.is_relative_to((folder / "assets").resolve()) and file.is_file()
    except (OSError, RuntimeError):  # a link to itself
        inside = False
    if not inside:
        raise InputError(f"report: its pictures must lie in {folder / 'assets'}, got {name!r}")
    kind = {".png": "png", ".jpg": "jpeg"}.get(file.suffix, "webp")
    return f"data:image/{kind};base64," + base64.b64encode(file.read_bytes()).decode()
