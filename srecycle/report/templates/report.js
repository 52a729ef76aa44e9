"use strict";
// Sorting, filtering and the theme. Without this script the page shows everything, in the order of the runs.
(() => {
  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;

  const value = (row, column) => {
    const raw = row.children[column].dataset.value;
    return raw === "" ? null : raw !== undefined && !Number.isNaN(Number(raw)) ? Number(raw) : raw;
  };

  // Rows without a value stay last in both directions: missing is neither small nor large.
  const sort = (table, column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows];
    rows.sort((first, second) => {
      const [one, other] = [value(first, column), value(second, column)];
      if (one === null || other === null) return (one === null) - (other === null);
      return sign * (typeof one === "number" && typeof other === "number" ? one - other : String(one).localeCompare(String(other)));
    });
    table.tBodies[0].append(...rows);
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

  document.getElementById("filter")?.addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const element of document.querySelectorAll("[data-run]")) {
      element.hidden = !element.dataset.run.toLowerCase().includes(wanted);
    }
  });

  for (const select of document.querySelectorAll("select.outcomes")) {
    select.addEventListener("change", () => {
      for (const one of select.closest("details").querySelectorAll(".case")) {
        one.hidden = select.value !== "" && one.dataset.outcome !== select.value;
      }
    });
  }

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
