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
      const only = find("detectors").checked;
      let shown = 0;
      for (const card of cards) {
        const data = card.dataset;
        const number = /^\d+$/.test(text);
        const named = !text || (number ? data.unit === text : data.label.toLowerCase().includes(text));
        const visible = named && (!category || data.category === category) && (!only || data.detector === "1");
        card.hidden = !visible;
        shown += visible;
      }
      find("count").textContent = `${shown} of ${cards.length} units`;
    };
    units.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    find("sort").addEventListener("change", sort);
    find("category").addEventListener("change", filter);
    find("find").addEventListener("input", filter);
    find("detectors").addEventListener("change", filter);
    find("masks").addEventListener("change", (event) => box.classList.toggle("plain", !event.target.checked));
    sort();
    filter();
  });
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) target.scrollIntoView();
})();
