"use strict";
// Sorting of the leaderboards and filtering of the galleries; the page reads well without either.

/** Sort a table's rows by the column of `head`; the same column again reverses. Blanks stay last. */
function sortBy(head) {
  const table = head.closest("table");
  const column = head.cellIndex;
  const numeric = head.classList.contains("number");
  const current = head.getAttribute("aria-sort");
  // Figures are read from the largest; ranks, like names, from the first.
  const first = numeric && head.textContent.trim() !== "Rank" ? "descending" : "ascending";
  const opposite = { ascending: "descending", descending: "ascending" };
  const order = opposite[current] ?? first;
  const sign = order === "ascending" ? 1 : -1;
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...table.tBodies[0].rows].sort((row, other) => {
    const a = value(row), b = value(other);
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b));
  });
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", order);
  table.tBodies[0].append(...rows);
}

/** Hide the pictures of a gallery that do not fit its form, and say how many are left. */
function filterGallery(gallery) {
  const form = gallery.querySelector("form");
  const wanted = Object.fromEntries(new FormData(form));
  const pictures = [...gallery.querySelectorAll(".pictures > li")];
  for (const picture of pictures) {
    picture.hidden = Object.entries(wanted).some(
      ([name, value]) => value !== "" && picture.dataset[name] !== value,
    );
  }
  const shown = pictures.filter((picture) => !picture.hidden).length;
  form.querySelector("output").textContent = `${shown} of ${pictures.length} shown`;
}

for (const button of document.querySelectorAll("th > .sort")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}
for (const gallery of document.querySelectorAll(".gallery")) {
  const form = gallery.querySelector("form");
  form.hidden = false;
  form.addEventListener("change", () => filterGallery(gallery));
  form.addEventListener("submit", (event) => event.preventDefault());
  filterGallery(gallery); // a reload may bring back what was chosen
}
