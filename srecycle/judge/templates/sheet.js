"use strict";
const form = document.querySelector("form");
const sheet = form.dataset.sheet;
const rows = [...form.querySelectorAll("section")];
let saved = true;

function label(row) {
  const chosen = row.querySelector("input[type=radio]:checked");
  return [row.dataset.row, chosen ? chosen.value : "", row.querySelector("textarea").value];
}

function count() {
  const done = rows.filter((row) => label(row)[1]).length;
  document.querySelector("#done").textContent = `${done} of ${rows.length} rows are answered`;
}

// Some browsers keep nothing for a page that was opened from a file: then only the saved file remains.
function keep() {
  try { localStorage.setItem(sheet, JSON.stringify(rows.map(label))); } catch { return; }
}

function restore() {
  let kept = [];
  try { kept = JSON.parse(localStorage.getItem(sheet)) || []; } catch { return; }
  for (const [name, preference, comment] of kept) {
    const row = rows.find((one) => one.dataset.row === name);
    if (!row) continue;
    for (const input of row.querySelectorAll("input[type=radio]")) input.checked = input.value === preference;
    row.querySelector("textarea").value = comment;
  }
}

// A comment that begins like a formula must not become one in a spreadsheet.
function cell(text) {
  return `"${text.replace(/(^|[;\t\r\n])(\s*)(?=[=+\-@])/g, "$1$2'").replaceAll('"', '""')}"`;
}

form.addEventListener("input", () => { saved = false; keep(); count(); });
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const lines = rows.map((row) => [sheet, ...label(row)]);
  const text = [["sheet", "row", "preference", "comment"], ...lines].map((line) => line.map(cell).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text, "\r\n"], { type: "text/csv" }));
  link.download = `${form.dataset.file}_labels.csv`;
  link.click();
  saved = true;
});
window.addEventListener("beforeunload", (event) => { if (!saved) event.preventDefault(); });
restore();
count();
