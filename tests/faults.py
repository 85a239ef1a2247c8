"""What is wrong with a page as a browser shows it."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import opened

# Arrays of what is wrong, in words, by what kind of fault it is.
_LOOK = r"""() => {
  const all = (what) => [...document.querySelectorAll(what)];
  const texts = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const { data, parentElement } = walk.currentNode;
    if (data.trim() && !parentElement.closest("script, style, title, .skip")) texts.push([data.trim(), parentElement]);
  }
  const cut = (table) => {
    const box = table.parentElement;
    return table.scrollWidth > box.clientWidth + 1 && !["auto", "scroll"].includes(getComputedStyle(box).overflowX);
  };
  const levels = all("h1, h2, h3").map((heading) => Number(heading.tagName[1]));
  const places = all('a[href^="#"]').map((link) => decodeURIComponent(link.hash.slice(1)));

  // Contrast as WCAG 2 defines it; over pictures, text has a halo or a ground of its own.
  const numbers = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const clear = (colour) => (numbers(colour)[3] ?? 1) === 0;
  const part = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [red, green, blue] = numbers(colour).map((value) => part(value / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const dim = new Map();
  for (const [text, at] of texts) {
    if (at.closest(".over, .caption")) continue;
    let below = at;
    while (below.parentElement && clear(getComputedStyle(below).backgroundColor)) below = below.parentElement;
    const style = getComputedStyle(at);
    const pair = [at.closest("svg") ? style.fill : style.color, getComputedStyle(below).backgroundColor];
    const [low, high] = pair.map(light).sort((one, other) => one - other);
    if ((high + 0.05) / (low + 0.05) < 4.5) dim.set(pair.join(" on "), text.slice(0, 40));
  }
  return {
    "is not there": all("img").filter((image) => image.complete && !image.naturalWidth).map((image) => image.src),
    "has no words": all("img").filter((image) => !image.alt && !image.matches(".sheet > .m, .lit > .m"))
      .map((image) => image.src),
    "has a literal backtick": texts.filter(([text, at]) => text.includes("`") && !at.closest("pre, code, .file"))
      .map(([text]) => text),
    "is cut": all("table").filter(cut).map((table) => table.textContent.trim().slice(0, 60)),
    "cannot be read": [...dim].map(([pair, text]) => `${text} (${pair})`),
    "skips a level": levels.filter((level, at) => level > (at ? levels[at - 1] + 1 : 1)).map(String),
    "leads nowhere": places.filter((place) => place && !document.getElementById(place)),
  };
}"""


def faults(browser, page: Path, width: int, *, scheme: str = "light") -> list[str]:
    """Everything wrong with a page whose every section is unfolded: what it says on the console or asks of the network,
    whether it scrolls sideways, pictures, tables, words, contrast, headings and links.

    Args:
        browser: the session's.
        page: a file.
        width: of the screen, in pixels.
        scheme: light or dark.
    """
    tab, heard = opened(browser, page, width)
    tab.emulate_media(color_scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    tab.wait_for_timeout(50)
    wide = tab.evaluate("document.documentElement.scrollWidth")
    found = [*heard, *([f"{wide} pixels wide on a screen of {width}"] if wide > width else [])]
    for what, places in tab.evaluate(_LOOK).items():
        found += [f"{what}: {place}" for place in places]
    tab.close()
    return [f"{page.name} ({width}, {scheme}): {fault}" for fault in found]
