/* What makes a page easier to use: links that open folds and tabs, rows that lead to places, tables that sort.
   Without it the page reads as it stands: tabs are radio buttons, folds are the browser's own. */

/* ---- links into folds and tabs ---- */

/* Open every fold and choose every tab that an element lies in. */
function unfold(element) {
  for (let part = element; part; part = part.parentElement) {
    if (part.tagName === "DETAILS") part.open = true;
    const label = part.previousElementSibling;
    if (part.classList.contains("panel") && label && label.htmlFor) document.getElementById(label.htmlFor).checked = true;
  }
}

function follow() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  unfold(target);
  target.scrollIntoView();
}

function linkFolds() {
  addEventListener("hashchange", follow);
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", () => { if (link.hash === location.hash) follow(); });
  }
  follow();
}

/* ---- rows, and parts that unfold, which lead to places ---- */

function makeButton(cell, text) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...cell.childNodes);
  if (text) button.title = text;
  cell.append(button);
  return button;
}

/* The viewer of the section that an element stands in, when there is one that shows. */
const viewerOf = (element) => element.closest("section").querySelector(".viewer:not([hidden])");

async function lead(viewer, element) {
  unfold(viewer);
  (await open(viewer)).go(element.dataset.at.split(" ").map(Number));
}

function linkPlaces() {
  for (const row of document.querySelectorAll("tr[data-at]")) {
    const viewer = viewerOf(row);
    if (!viewer) continue;
    row.classList.add("leads");
    makeButton(row.cells[0], "Show in the viewer"); // for the keyboard; the row takes the mouse
    row.addEventListener("click", (event) => {
      if (event.target.closest("a")) return;
      const section = row.closest("section");
      for (const other of section.querySelectorAll("tr[aria-current]")) other.removeAttribute("aria-current");
      row.setAttribute("aria-current", "true");
      unfold(viewer);
      viewer.scrollIntoView({ block: "nearest" });
      lead(viewer, row);
    });
  }
  for (const details of document.querySelectorAll("details[data-at]")) {
    const viewer = viewerOf(details);
    if (viewer) {
      details.querySelector("summary").addEventListener("click", () => { if (!details.open) lead(viewer, details); });
    }
  }
}

/* ---- tables that sort ---- */

function sortTable(table, column, heading) {
  const numeric = heading.classList.contains("num");
  const first = numeric ? "descending" : "ascending";
  const second = numeric ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === first ? second : first;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => {
    const cell = row.cells[column];
    return { row, text: cell.dataset.value || (numeric ? "" : cell.textContent.trim()) };
  });
  rows.sort((one, other) => {
    if (!one.text || !other.text) return (one.text ? 0 : 1) - (other.text ? 0 : 1); // what is missing goes last
    return sign * (numeric ? Number(one.text) - Number(other.text)
      : one.text.localeCompare(other.text, undefined, { numeric: true }));
  });
  table.tBodies[0].append(...rows.map((one) => one.row));
}

function sortTables() {
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      makeButton(heading, "Sort").addEventListener("click", () => sortTable(table, column, heading));
    });
  }
}

sortTables();
showViewers();
linkPlaces();
linkFolds();
