"use strict";
// Keeps the live part of a page up to date; the pages read well without it.

const EVERY = 2000; // milliseconds
const live = document.querySelector("#live");
const state = document.querySelector("#state");
let tag = live?.dataset.tag ?? ""; // of what the page shows

/** Put new content in place; what had the focus, or was open, has it again. */
function replace(html) {
  const address = document.activeElement?.getAttribute?.("href");
  const open = [...live.querySelectorAll("details")].map((details) => details.open);
  const figures = () => live.querySelector("[data-figures]")?.dataset.figures;
  const before = figures();
  live.innerHTML = html;
  if (figures() !== before) location.reload(); // the rest of the page is of another state
  const all = [...live.querySelectorAll("details")];
  if (all.length === open.length) all.forEach((details, place) => { details.open = open[place]; });
  if (address) [...live.querySelectorAll("a")].find((a) => a.getAttribute("href") === address)?.focus();
}

async function refresh() {
  if (!document.hidden) {
    try {
      const answer = await fetch(live.dataset.source, { headers: { "If-None-Match": tag } });
      if (answer.status === 200) {
        replace(await answer.text());
        tag = answer.headers.get("ETag");
      }
      state.textContent = "";
    } catch {
      state.textContent = "The server has ended: this page is no longer up to date.";
    }
  }
  setTimeout(refresh, EVERY);
}

if (live) refresh();

// A picture that is not to be had says so.
document.addEventListener("error", (event) => {
  if (event.target instanceof HTMLImageElement) {
    const text = document.createElement("span");
    text.className = "no-picture";
    text.textContent = "no picture";
    event.target.replaceWith(text);
  }
}, true);

// A tiny picture is shown pixel by pixel.
document.addEventListener("load", (event) => {
  if (event.target instanceof HTMLImageElement && event.target.naturalWidth <= 64) {
    event.target.classList.add("pixels");
  }
}, true);
