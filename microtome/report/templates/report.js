(() => {
  const section = document.querySelectorAll("section.units");
  section.forEach((units) => {
    const find = (name) => units.querySelector(`[data-${name}]`);
    const box = units.querySelector(".cards");
    const cards = [...box.children];
    const order = {
      iou: (a, b) => b.dataset.iou - a.dataset.iou || a.dataset.unit - b.dataset.unit,
      unit: (a, b) => a.dataset.unit - b.dataset.unit,
      label: (a, b) => a.dataset.label.localeCompare(b.dataset.label) || order.iou(a, b),
      q: (a, b) => a.dataset.q - b.dataset.q || order.iou(a, b),
    };
    const sort = () => box.append(...cards.sort(order[find("sort").value]));
    const filter = () => {
      const text = find("find").value.trim().toLowerCase();
      const category = find("category").value;
      const [detectors, confirmed] = ["detectors", "confirmed"].map((name) => find(name).checked);
      let shown = 0;
      for (const card of cards) {
        const data = card.dataset;
        const number = /^\d+$/.test(text);
        const named = !text || (number ? data.unit === text : data.label.toLowerCase().includes(text));
        const firm = (!detectors || data.detector === "1") && (!confirmed || data.confirmed === "1");
        const visible = named && (!category || data.category === category) && firm;
        card.hidden = !visible;
        shown += visible;
      }
      find("count").textContent = `${shown} of ${cards.length} units`;
    };
    units.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    find("sort").addEventListener("change", sort);
    find("category").addEventListener("change", filter);
    find("find").addEventListener("input", filter);
    for (const name of ["detectors", "confirmed"]) find(name).addEventListener("change", filter);
    find("masks").addEventListener("change", (event) => box.classList.toggle("plain", !event.target.checked));
    sort();
    filter();
  });
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
  document.querySelectorAll(".outline:not(.plain-text)").forEach((outline) => {
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
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.scrollIntoView();
})();
