// Tables that are sorted by a click on a heading and filtered by a word; without scripts they are plain tables.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text === "" || text === "\u2013" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const keyed = rows.map(row => [value(row, column), row]);
      // What is not known stays last in both directions.
      keyed.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : (falling ? -1 : 1) * compare(a, b));
      body.append(...keyed.map(([, row]) => row));
    });
  });
  const label = document.createElement("label"), input = document.createElement("input"), count = document.createElement("output");
  input.type = "search";
  label.className = "filter";
  label.append("show rows with ", input, " ", count);
  table.parentElement.before(label);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  });
}
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
// A link to a folded part opens it.
const unfold = () => {
  const part = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  for (let own = part && part.closest("details"); own; own = own.parentElement.closest("details")) own.open = true;
  if (part) part.scrollIntoView();
};
addEventListener("hashchange", unfold);
unfold();
