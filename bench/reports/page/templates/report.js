"use strict";
// Sorting of the leaderboards, filtering of the galleries, and further runs on demand.

/** Sort a table's rows by the column of `head`; the same column again reverses. Blanks stay last. */
function sortBy(head) {
  const table = head.closest("table");
  const column = head.cellIndex;
  const numeric = head.classList.contains("number");
  const current = head.getAttribute("aria-sort");
  // Figures are read from the largest; ranks, like names, from the first.
  const first = numeric && head.textContent.trim() !== "rank" ? "descending" : "ascending";
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

/**
 * Show the pictures of a gallery that fit its form, and say how many there are. A page holds
 * thousands: those in its template are loaded as a reader comes to them.
 */
function openGallery(gallery) {
  const form = gallery.querySelector("form");
  const list = gallery.querySelector(".pictures");
  const more = gallery.querySelector(".more-pictures");
  const rest = gallery.querySelector("template");
  const all = [...list.children, ...(rest ? rest.content.children : [])];
  const atOnce = list.children.length;
  let fitting = all;
  let shown = 0;

  function showMore() {
    list.append(...fitting.slice(shown, shown + atOnce));
    shown = Math.min(shown + atOnce, fitting.length);
    if (more) more.hidden = shown === fitting.length;
  }
  function filter() {
    const wanted = Object.entries(Object.fromEntries(new FormData(form)));
    const fits = (picture) =>
      wanted.every(([name, value]) => value === "" || picture.dataset[name] === value);
    fitting = all.filter(fits);
    shown = 0;
    list.replaceChildren();
    showMore();
    form.querySelector("output").textContent = `${fitting.length} of ${all.length} shown`;
  }

  form.hidden = false;
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  if (more) {
    more.addEventListener("click", showMore);
    new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) showMore();
    }, { rootMargin: "600px" }).observe(more);
  }
  filter(); // a reload may bring back what was chosen
}

for (const button of document.querySelectorAll("th > .sort")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}
for (const gallery of document.querySelectorAll(".gallery")) openGallery(gallery);

/** Unpack the runs beyond the first ones when the reader asks for them, or follows a link to one. */
function openOnDemand(further) {
  const button = further.querySelector("button");
  async function unpack() {
    button.disabled = true;
    const packed = atob(further.querySelector("template").content.textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const pages = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const holder = document.createElement("div");
    holder.innerHTML = await new Response(pages).text();
    for (const gallery of holder.querySelectorAll(".gallery")) openGallery(gallery);
    further.replaceWith(...holder.children);
    followed();
  }
  function followed() {
    const target = document.getElementById(location.hash.slice(1));
    if (target) target.scrollIntoView();
    else if (location.hash.startsWith("#run-") && further.isConnected && !button.disabled) unpack();
  }
  button.hidden = false;
  button.addEventListener("click", unpack);
  addEventListener("hashchange", followed);
  followed();
}
for (const further of document.querySelectorAll(".further")) openOnDemand(further);
