(() => {
  // What is chosen lives in the address, so that it can be kept and sent: `?sort=q&find=wing`.
  const address = new URLSearchParams(location.search);
  const all = (what, from = document) => [...from.querySelectorAll(what)];
  const put = () => {
    const query = address.toString();
    history.replaceState(null, "", (query ? `?${query}` : location.pathname) + location.hash);
    all("a[data-keep]").forEach((link) => { link.search = query; });
  };
  const several = all("section.units").length > 1;
  const value = (control) => (control.type === "checkbox" ? String(control.checked) : control.value);
  const usual = (control) => (control.type === "checkbox" ? String(control.defaultChecked) : "");
  all("[data-state]").forEach((control) => {
    const page = several && control.dataset.shows !== "overlay" && control.closest("section.page");
    const name = page ? `${page.id}/${control.dataset.state}` : control.dataset.state;
    const given = address.get(name);
    if (given !== null && control.type === "checkbox") control.checked = given === "true";
    else if (given !== null) control.value = given;
    if (control.value === "" && control.options) control.selectedIndex = 0;
    const changed = () => {
      if (value(control) === usual(control)) address.delete(name);
      else address.set(name, value(control));
      put();
    };
    control.addEventListener("input", changed);
    const what = control.dataset.shows;
    if (!what || what === "overlay") return;
    const scope = control.closest(".units") || document.documentElement;
    const show = () => scope.classList.toggle(`no-${what}`, !control.checked);
    control.addEventListener("input", show);
    show();
  });
  if (address.toString()) put();

  // One switch for all that lies over pictures, wherever it stands on the page, and the key m; n and p lead on and back.
  const overlays = all('[data-shows="overlay"]');
  const uncover = (shown) => {
    document.documentElement.classList.toggle("no-overlay", !shown);
    overlays.forEach((control) => { control.checked = shown; });
    all('[data-shows="mask"], [data-shows="note"]').forEach((control) => { control.disabled = !shown; });
  };
  overlays.forEach((control) => control.addEventListener("input", () => uncover(control.checked)));
  if (overlays.length) uncover(overlays[0].checked);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("select, textarea, input:not([type=checkbox])");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    const turns = document.querySelector("dialog[open]") ? {} : { n: 'a[rel="next"]', p: 'a[rel="prev"]' };
    const place = { m: '[data-shows="overlay"]', ...turns }[event.key];
    if (place) document.querySelector(place)?.click();
  });
  all("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));

  // A unit is sought by words that must all be met: a number in any writing, a concept, a category, a layer.
  const plain = (text) => text.normalize("NFKC").toLowerCase();
  const words = (text) => plain(text).replace(/(\d)[,'’_](?=\d{3}(?!\d))/g, "$1").split(/[\s#]+/)
    .filter((word) => word && !/^(u|unit|units|no|nr|number|filter|channel)[.:]?$/.test(word));
  const meets = (word, unit) => {
    const number = word.match(/^(?:u|unit|filter|channel)?[-_.:]?0*(\d+)[.,;]?$/);
    if (number && Number(number[1]) === unit.number) return true;
    const both = word.match(/^(.+)[/:_\-.]u?0*(\d+)$/);
    if (both && both[1] === unit.layer && Number(both[2]) === unit.number) return true;
    return number ? unit.text.split(/[^\p{L}\p{N}]+/u).includes(word) : unit.text.includes(word) || unit.layer.includes(word);
  };
  const found = (query, unit) => words(query).every((word) => meets(word, unit));

  all("section.units").forEach((units) => {
    const find = (name) => units.querySelector(`[data-state="${name}"]`);
    const box = units.querySelector(".cards");
    const cards = [...box.children];
    const given = [...cards];
    const known = new Map(cards.map((card) => [card, { number: Number(card.dataset.unit), layer: "", text: plain(`${card.dataset.label} ${card.dataset.category}`) }]));
    const order = {
      iou: (a, b) => b.dataset.iou - a.dataset.iou || a.dataset.unit - b.dataset.unit,
      unit: (a, b) => a.dataset.unit - b.dataset.unit,
      label: (a, b) => a.dataset.label.localeCompare(b.dataset.label) || order.iou(a, b),
      q: (a, b) => a.dataset.q - b.dataset.q || order.iou(a, b),
    };
    const sort = () => { const by = find("sort").value; box.append(...(by ? cards.sort(order[by]) : given)); };
    const filter = () => {
      const text = find("find").value;
      const category = find("category").value;
      const [detectors, confirmed] = ["detectors", "confirmed"].map((name) => find(name).checked);
      let shown = 0;
      for (const card of cards) {
        const data = card.dataset;
        const firm = (!detectors || data.detector) && (!confirmed || data.confirmed);
        const visible = firm && (!category || data.category === category) && found(text, known.get(card));
        if (card.hidden === !!visible) card.hidden = !visible;
        shown += !!visible;
      }
      units.querySelector("[data-count]").textContent = `${shown} of ${cards.length} units`;
    };
    find("sort").addEventListener("input", sort);
    for (const name of ["category", "find", "detectors", "confirmed"]) find(name).addEventListener("input", filter);
    if (find("sort").value) sort();
    filter();
  });

  const STEP = 200;
  all(".listing").forEach((listing) => {
    const read = JSON.parse(listing.querySelector("script").textContent);
    const alone = listing.dataset.listing !== "pages";
    const units = read.units.map(([layer, number, concept, category, state, iou, between, held, q, chance, thumb, masks, rows], place) => ({
      number, concept, category, state, iou, between, held, q, chance, thumb: alone ? "" : thumb, masks, rows, place, limit: read.layers[layer][2], shown: read.layers[layer][0], layer: plain(read.layers[layer][0]),
      text: plain(`${concept} ${category}`),
      to: alone ? `#${read.layers[layer][0]}/${number}` : `${read.layers[layer][1]}/${number}.html`,
    }));
    const find = (name) => listing.querySelector(`[data-state="${name}"]`);
    const worth = (text, without) => { const value = parseFloat(text.replace(/^[^\d]+/, "")); return Number.isNaN(value) ? without : value; };
    const order = {
      "": (a, b) => b.iou - a.iou || a.place - b.place,
      held: (a, b) => worth(b.held, -1) - worth(a.held, -1) || a.place - b.place,
      q: (a, b) => worth(a.q, 2) - worth(b.q, 2) || b.iou - a.iou,
      unit: (a, b) => a.place - b.place,
      concept: (a, b) => !a.concept - !b.concept || a.concept.localeCompare(b.concept) || b.iou - a.iou,
    };
    const cell = (text, head, kind) => {
      const item = Object.assign(document.createElement("td"), { textContent: text, className: kind || "" });
      if (head) item.dataset.h = head;
      return item;
    };
    const ends = (unit) => (unit.between.match(/[\d.]+/g) || []).map(Number);
    const widest = Math.max(0, ...units.flatMap((unit) => [Number(unit.iou) || 0, Number(unit.chance) || 0, ...ends(unit)]));
    const drawn = (unit) => {
      const item = Object.assign(document.createElement("td"), { className: "strip" });
      if (unit.iou === "" || !widest) return item;
      const bar = Object.assign(document.createElement("i"), { className: "line" }), [low, high] = ends(unit);
      for (const [name, value] of [["t", unit.limit], ["v", Number(unit.iou)], ["a", low], ["b", high], ["n", Number(unit.chance) || undefined]]) {
        if (value !== undefined) bar.style.setProperty(`--${name}`, (100 * value / widest).toFixed(2));
      }
      bar.append(document.createElement("i"));
      item.append(bar);
      return item;
    };
    const marked = (state) => {
      if (state.startsWith("confirmed detector")) return [`✓ ${state}`, state === "confirmed detector" ? "good" : "warned"];
      return state.startsWith("detector, not confirmed") ? [`? ${state}`, "warned"] : [state, "quiet"];
    };
    const failing = (unit, name) => (unit.state.match(/; fails (.*)$/)?.[1].split(" and ").includes(name) ? "n warned" : "n");
    const lit = (unit) => {
      const box = Object.assign(document.createElement("span"), { className: "lit" });
      box.append(Object.assign(new Image(56, 56), { loading: "lazy", src: unit.thumb, alt: `where unit ${unit.number} is highest` }));
      if (!unit.masks) return box;
      const over = Object.assign(new Image(), { loading: "lazy", src: unit.masks, alt: "", className: "m" });
      over.style.height = `${100 * unit.rows}%`;
      box.append(over);
      return box;
    };
    const line = (unit) => {
      const row = document.createElement("tr"), head = document.createElement("th"), [state, mark] = marked(unit.state);
      head.scope = "row";
      if (unit.thumb) head.append(lit(unit));
      head.append(Object.assign(document.createElement("a"), { href: unit.to, textContent: `${unit.shown} unit ${unit.number}` }));
      const label = cell("", "", "label");
      label.append(Object.assign(document.createElement("b"), { textContent: unit.concept || "–" }));
      if (unit.category) label.append(" ", Object.assign(document.createElement("span"), { className: "quiet", textContent: unit.category }));
      row.append(head, label, drawn(unit), cell(`${unit.iou} ${unit.between}`.trim(), "IoU", "n"), cell(unit.held, "held out", failing(unit, "held out")), cell(unit.q, "q", failing(unit, "q")), cell(state, "", mark));
      return row;
    };
    // Above the lines stand their ends and, where all layers have one limit, the limit, where it leaves room for them.
    const limits = new Set(read.layers.map((layer) => layer[2])), axis = listing.querySelector("[data-axis]");
    const at = (value, text) => {
      const item = Object.assign(document.createElement("span"), { textContent: text });
      item.style.left = `${100 * value / widest}%`;
      axis.append(item);
    };
    if (axis && widest) {
      const [limit] = limits.size === 1 ? limits : [0];
      if (!limit || limit > 0.25 * widest) at(0, "0");
      if (limit && limit < 0.8 * widest) at(limit, limit);
      at(widest, String(Number(widest.toFixed(2))));
    }
    let most = STEP;
    const show = () => {
      const firm = (unit) => !find("firm").checked || unit.state.startsWith("confirmed detector");
      const some = units.filter((unit) => firm(unit) && found(find("q").value, unit)).sort(order[find("order").value]);
      const told = some.length === units.length ? `${units.length} units` : `${some.length} of ${units.length} units`;
      listing.querySelector("[data-found]").replaceChildren(...some.slice(0, most).map(line));
      listing.querySelector("[data-count]").textContent = some.length > most ? `${told}, the first ${most} shown` : told;
      more.hidden = some.length <= most;
    };
    const more = listing.querySelector("[data-more]");
    more.addEventListener("click", () => { most += STEP; show(); });
    all("[data-state]", listing).forEach((control) => control.addEventListener("input", () => { most = STEP; show(); }));
    show();
  });
  all("[data-seek]").forEach((form) => {
    const sought = form.querySelector("input"), here = document.querySelector(".listing");
    const pass = () => {
      const box = here.querySelector('[data-state="q"]');
      box.value = sought.value.trim();
      box.dispatchEvent(new Event("input"));
    };
    if (here) sought.addEventListener("input", pass);
    form.addEventListener("submit", () => {
      if (here) { pass(); here.scrollIntoView(); } else location.href = `${form.dataset.seek}?q=${encodeURIComponent(sought.value.trim())}`;
    });
  });

  // A picture that is clicked is shown large, with what lies over it; + and - zoom, arrows lead on.
  const LARGE = [/\/s\/(\d+)\.webp$/, "/l/$1.jpg"];
  const PICTURES = ".pic, .sheet img:not(.m), .over";
  let zoom, group, at, scale;
  const enlarged = (picture) => {
    if (picture.matches(".sheet img")) {
      const box = Object.assign(document.createElement("div"), { className: "pic" });
      box.append(Object.assign(document.createElement("img"), { src: picture.src, alt: picture.alt }));
      const sheet = picture.parentNode.querySelector(".m"), place = all("img:not(.m)", picture.parentNode).indexOf(picture);
      if (sheet) {
        const across = 5, rows = Math.ceil(all("img:not(.m)", picture.parentNode).length / across);
        const over = Object.assign(document.createElement("i"), { className: "m" });
        over.style.background = `url("${sheet.src}")`;
        over.style.backgroundSize = `${across * 100}% ${rows * 100}%`;
        over.style.backgroundPosition = `${(place % across) / (across - 1) * 100}% ${rows > 1 ? Math.floor(place / across) / (rows - 1) * 100 : 0}%`;
        box.append(over);
      }
      return box;
    }
    const box = picture.cloneNode(true);
    box.removeAttribute("tabindex");
    box.classList.add("pic");
    return box;
  };
  const size = (times) => {
    scale = Math.min(8, Math.max(1, times));
    zoom.querySelector(".stage").style.setProperty("--z", scale);
  };
  const open = (place) => {
    at = (place + group.length) % group.length;
    const picture = group[at], box = enlarged(picture), image = box.querySelector("img");
    const scope = picture.closest(".units") || document.documentElement;
    const small = image.src;
    image.loading = "eager";
    image.onerror = () => { image.onerror = null; image.src = small; };
    image.src = small.replace(...LARGE);
    const stage = zoom.querySelector(".stage");
    for (const what of ["mask", "note"]) stage.classList.toggle(`no-${what}`, scope.classList.contains(`no-${what}`));
    stage.replaceChildren(box);
    all("[data-step]", zoom).forEach((button) => { button.disabled = group.length < 2; });
    zoom.querySelector('[aria-label^="mask"]').hidden = !box.querySelector(".m");
    zoom.querySelector('[aria-label^="annotation"]').hidden = !box.querySelector(".note");
    zoom.querySelector(".file").textContent = image.alt;
    const unit = picture.closest(".card, .cover > div")?.querySelector("h3 a[href], .label a[href]");
    const to = zoom.querySelector("a");
    to.hidden = !unit;
    if (unit) { to.href = unit.href; to.textContent = unit.textContent; }
    size(1);
    if (!zoom.open) zoom.showModal();
  };
  const switched = (what) => {
    const scope = group[at].closest(".units") || document;
    const control = scope.querySelector(`[data-shows="${what}"]`);
    if (control) control.click();
    zoom.querySelector(".stage").classList.toggle(`no-${what}`, control ? !control.checked : undefined);
  };
  const made = () => {
    zoom = Object.assign(document.createElement("dialog"), { className: "zoom" });
    zoom.setAttribute("aria-label", "enlarged picture");
    const button = (text, label, act, step) => {
      const item = Object.assign(document.createElement("button"), { type: "button", textContent: text });
      item.setAttribute("aria-label", label);
      if (step) item.dataset.step = step;
      item.addEventListener("click", act);
      return item;
    };
    const bar = Object.assign(document.createElement("div"), { className: "bar-top" });
    bar.append(
      Object.assign(document.createElement("span"), { className: "file" }), document.createElement("a"),
      button("←", "previous picture", () => open(at - 1), "-1"), button("→", "next picture", () => open(at + 1), "1"),
      button("−", "smaller", () => size(scale / 1.5)), button("+", "larger", () => size(scale * 1.5)),
      button("mask", "mask on or off", () => switched("mask")),
      button("annotation", "annotation on or off", () => switched("note")),
      button("close", "close", () => zoom.close()),
    );
    const stage = Object.assign(document.createElement("div"), { className: "stage" });
    zoom.append(bar, stage);
    document.body.append(zoom);
    zoom.addEventListener("keydown", (event) => {
      const act = { ArrowLeft: () => open(at - 1), ArrowRight: () => open(at + 1), "+": () => size(scale * 1.5), "-": () => size(scale / 1.5), 0: () => size(1) }[event.key];
      if (act) { event.preventDefault(); act(); }
    });
    zoom.addEventListener("click", (event) => { if (event.target === zoom) zoom.close(); });
    stage.addEventListener("wheel", (event) => { event.preventDefault(); size(scale * (event.deltaY < 0 ? 1.2 : 1 / 1.2)); }, { passive: false });
    stage.addEventListener("pointermove", (event) => {
      if (event.buttons) stage.scrollBy(-event.movementX, -event.movementY);
    });
    stage.addEventListener("dragstart", (event) => event.preventDefault());
  };
  const enlarge = (event) => {
    const picture = event.target.closest?.(PICTURES);
    if (!picture || picture.closest(".zoom") || event.target.closest("a")) return;
    event.preventDefault();
    if (!zoom) made();
    group = all(PICTURES, picture.closest(".pics, .plates") || picture.parentNode);
    open(group.indexOf(picture));
  };
  document.addEventListener("click", enlarge);
  document.addEventListener("pointerover", ({ target }) => { if (target.matches?.(".sheet img:not(.m)")) target.title = target.alt; });
  document.addEventListener("keydown", (event) => { if (event.key === "Enter" && event.target.matches(PICTURES)) enlarge(event); });
  all(".pic, .over, .cover .sheet img:not(.m)").forEach((picture) => { picture.tabIndex = 0; picture.setAttribute("role", "button"); picture.setAttribute("aria-label", `enlarge ${(picture.querySelector("img") || picture).alt}`); });

  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, values, text) => {
    const item = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(values)) item.setAttribute(key, value);
    if (text) item.textContent = text;
    return item;
  };
  // The outline is the tree; the drawing shows what is unfolded in it, and a click there folds it.
  document.querySelectorAll(".drawing").forEach((drawing) => {
    drawing.querySelectorAll("input").forEach((box) => box.addEventListener("change", () => {
      drawing.querySelector(`g[data-level="${box.dataset.level}"]`).toggleAttribute("hidden", !box.checked);
    }));
  });
  document.querySelectorAll(".outline").forEach((outline) => {
    const draw = () => {
      const across = 150, down = 22, nodes = [], lines = [];
      let row = 0;
      const place = (item, depth) => {
        const fold = item.querySelector(":scope > details");
        const text = (fold ? fold.querySelector("summary") : item.querySelector(".leaf")).firstChild.textContent.trim();
        const below = fold && fold.open ? [...fold.querySelectorAll(":scope > ul > li")] : [];
        const rows = below.map((child) => place(child, depth + 1));
        const y = rows.length ? (rows[0] + rows[rows.length - 1]) / 2 : down * (row++ + 0.8);
        rows.forEach((to) => lines.push([depth, y, to]));
        nodes.push({ depth, y, text, fold, folded: fold && !fold.open });
        return y;
      };
      place(outline.querySelector(".branches > li"), 0);
      const deepest = Math.max(...nodes.map((node) => node.depth));
      const size = { width: across * (deepest + 1) + 40, height: down * (row + 0.6) };
      const svg = make("svg", { ...size, role: "img", "aria-label": "the unfolded part of the outline, drawn" });
      const x = (depth) => 14 + depth * across;
      for (const [depth, from, to] of lines) {
        const [a, b, middle] = [x(depth), x(depth + 1), x(depth) + across / 2];
        svg.append(make("path", { d: `M${a} ${from}C${middle} ${from} ${middle} ${to} ${b} ${to}` }));
      }
      for (const node of nodes) {
        const group = make("g", { class: node.folded ? "node folded" : "node" });
        group.append(make("circle", { cx: x(node.depth), cy: node.y, r: node.fold ? 6 : 3 }));
        group.append(make("text", { x: x(node.depth) + 10, y: node.y + 4 }, node.text.slice(0, 20)));
        if (node.fold) group.addEventListener("click", () => { node.fold.open = !node.fold.open; });
        svg.append(group);
      }
      outline.querySelector(".drawn").replaceChildren(svg);
    };
    outline.addEventListener("toggle", draw, true);
    draw();
  });
  // What is wider than the screen has a shadow at the side on which it goes on.
  all(".scroll").forEach((box) => {
    const mark = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
    box.addEventListener("scroll", mark, { passive: true });
    addEventListener("resize", mark);
    box.closest("details")?.addEventListener("toggle", mark);
    mark();
  });
  const current = document.querySelector(".top > nav [aria-current]");
  if (current) current.parentNode.scrollLeft = current.offsetLeft - current.parentNode.offsetLeft - 40;

  // On a narrow screen the first pictures come first; whoever is led to what is folded finds it open.
  if (matchMedia("(max-width: 760px)").matches) all("details.fold").forEach((fold) => { fold.open = false; });
  const unfold = () => {
    const to = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = to && to.closest("details");
    if (fold) fold.open = true;
  };
  addEventListener("hashchange", unfold);
  unfold();
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.scrollIntoView();
})();
