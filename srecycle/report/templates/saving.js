// Every table as CSV and as LaTeX: the rows that are shown, in their order, made from the page when asked for.
(() => {
  const shown = (cell) => {
    const copy = cell.cloneNode(true);
    for (const extra of copy.querySelectorAll(".sr, .chip, small, summary")) extra.remove();
    return copy.textContent.trim();
  };
  const exact = (cell) => cell.dataset.value ?? shown(cell);

  const heads = (table) => {
    const rows = table.tHead?.rows;
    if (rows?.length) return [...rows[rows.length - 1].cells].map((cell) => cell.dataset.name ?? shown(cell));
    return [...(table.tBodies[0].rows[0]?.cells ?? [])].map((_, place) => (place ? "value" : "name"));
  };
  const body = (table) => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => [...row.cells]);

  // A spreadsheet takes a text that begins like this for a formula, and runs it.
  const quoted = (text) => {
    const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  // A value with its standard error, and an interval, take two columns.
  const parts = (cells, head) => {
    const holds = (name) => cells.some((cell) => name in (cell?.dataset ?? {}));
    if (holds("stderr")) return [[head, exact], [`${head} stderr`, (cell) => cell.dataset.stderr ?? ""]];
    if (holds("low")) return [[`${head} low`, (cell) => cell.dataset.low ?? ""], [`${head} high`, (cell) => cell.dataset.high ?? ""]];
    return [[head, exact]];
  };
  const csv = (table) => {
    const lines = body(table);
    const columns = heads(table).map((head, place) => parts(lines.map((cells) => cells[place]), head));
    const rows = lines.map((cells) => cells.flatMap((cell, place) => columns[place].map(([, write]) => write(cell))));
    return [columns.flatMap((some) => some.map(([head]) => head)), ...rows].map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
  };

  const meanings = {
    "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "$": "\\$", "&": "\\&", "#": "\\#", "_": "\\_", "%": "\\%",
    "^": "\\textasciicircum{}", "~": "\\textasciitilde{}", "<": "\\textless{}", ">": "\\textgreater{}", "±": "$\\pm$",
    "–": "--", "…": "\\ldots{}", "−": "$-$",
  };
  const escaped = (text) => text.replace(/[\\{}$&#_%^~<>±–…−]/g, (one) => meanings[one]).replace(/\s+/g, " ");
  const typeset = (cell) => {
    const error = cell.querySelector("small")?.textContent ?? "";
    const text = escaped(shown(cell) + error);
    return cell.classList.contains("best") ? `\\textbf{${text}}` : text;
  };
  const latex = (table) => {
    const lines = body(table);
    const numeric = heads(table).map((_, place) => lines.some((cells) => cells[place]?.classList.contains("number")));
    const row = (cells) => `${cells.join(" & ")} \\\\`;
    return [
      "% \\usepackage{booktabs}", `\\begin{tabular}{${numeric.map((one) => (one ? "r" : "l")).join("")}}`, "\\toprule",
      row(heads(table).map(escaped)), "\\midrule", ...lines.map((cells) => row(cells.map(typeset))), "\\bottomrule", "\\end{tabular}", "",
    ].join("\n");
  };

  const save = (text, name, kind) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const offer = (table) => {
    if (table.dataset.offered) return;
    table.dataset.offered = "yes";
    const name = table.dataset.save.replace(/[^\w.-]+/g, "-").slice(0, 80);
    const bar = document.createElement("p");
    bar.className = "saves";
    for (const [title, write, ending, kind] of [["CSV", csv, "csv", "text/csv"], ["LaTeX", latex, "tex", "text/x-tex"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = title;
      button.setAttribute("aria-label", `save this table as ${title}`);
      button.addEventListener("click", () => save(write(table), `${name}.${ending}`, kind));
      bar.append(button);
    }
    (table.closest(".scrolled") ?? table).after(bar);
  };

  for (const table of document.querySelectorAll("table[data-save]")) {
    const folded = table.closest("details");
    if (folded) folded.addEventListener("toggle", () => offer(table), { once: true });
    else offer(table);
  }
})();
