"use strict";
// Sorting, filtering and the theme. Without this script the page shows everything, in the order of the runs.
(() => {
  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;

  const value = (row, column) => {
    const cell = row.children[column];
    const raw = cell.dataset.value ?? cell.dataset.low ?? cell.textContent.trim();
    return raw === "" ? null : Number.isNaN(Number(raw)) ? raw : Number(raw);
  };

  // Rows without a value stay last in both directions: missing is neither small nor large.
  const compared = (one, other) =>
    typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other), undefined, { numeric: true });
  const sort = (table, column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
    rows.sort(([one], [other]) => (one === null || other === null ? (one === null) - (other === null) : sign * compared(one, other)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };

  for (const button of document.querySelectorAll("th[aria-sort] button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const opposite = { ascending: "descending", descending: "ascending" };
      const direction = opposite[head.getAttribute("aria-sort")] || button.dataset.first;
      for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", direction);
      sort(head.closest("table"), head.cellIndex, direction);
    });
  }

  const filter = document.getElementById("filter");
  const group = document.getElementById("group");
  const lines = [...document.querySelectorAll("table.compared tbody tr")];
  const narrow = () => {
    const wanted = filter.value.trim().toLowerCase();
    const shown = lines.filter((line) =>
      (!group?.value || line.dataset.group === group.value) && `${line.dataset.run} ${line.dataset.words}`.toLowerCase().includes(wanted));
    const names = new Set(shown.map((line) => line.dataset.run));
    for (const element of document.querySelectorAll("[data-run]")) element.hidden = !names.has(element.dataset.run);
    document.getElementById("filtered").textContent = names.size < lines.length ? `${names.size} of ${lines.length}` : "";
  };
  filter?.addEventListener("input", narrow);
  group?.addEventListener("change", narrow);
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest?.("input, select, textarea")) return;
    event.preventDefault();
    filter?.focus();
  });

  const runs = document.querySelectorAll("details.run");
  const openAll = (open) => () => runs.forEach((run) => { run.open = open; });
  document.getElementById("open-all").addEventListener("click", openAll(true));
  document.getElementById("close-all").addEventListener("click", openAll(false));

  // A link to a run opens it.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  reveal();

  const themes = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  const remembered = () => { try { return localStorage.getItem("srecycle-theme"); } catch { return null; } };
  const show = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `theme: ${theme}`;
  };
  let theme = themes.includes(remembered()) ? remembered() : "system";
  show(theme);
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("srecycle-theme", theme); } catch { /* private windows remember nothing */ }
    show(theme);
  });
})();
