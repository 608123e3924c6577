
"use strict";
(() => {
  const rows = [...document.querySelectorAll("#actions tbody tr")];
  const bars = [...document.querySelectorAll(".bar")];
  const rowOf = new Map(rows.map((row) => [row.dataset.action, row]));
  const barsOf = new Map();
  for (const bar of bars) {
    const action = bar.dataset.action;
    barsOf.set(action, [...(barsOf.get(action) || []), bar]);
  }
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const filter = document.getElementById("filter");
  const host = document.getElementById("host");
  const outcome = document.getElementById("outcome");
  const count = document.getElementById("count");
  const tip = document.getElementById("tip");

  function apply() {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits = words.get(row).includes(wanted)
        && (!host.value || row.dataset.host === host.value)
        && (!outcome.value || row.dataset.outcome === outcome.value);
      row.hidden = !fits;
      shown += fits;
      for (const bar of barsOf.get(row.dataset.action) || []) bar.classList.toggle("out", !fits);
    }
    count.value = `${shown} of ${rows.length} shown`;
  }

  let marked = null;
  function mark(action) {
    if (marked !== null) {
      for (const bar of barsOf.get(marked) || []) bar.classList.remove("shown");
      rowOf.get(marked)?.classList.remove("shown");
    }
    marked = action;
    if (action === null) return;
    for (const bar of barsOf.get(action) || []) bar.classList.add("shown");
    rowOf.get(action)?.classList.add("shown");
  }

  function tell(bar) {
    const row = rowOf.get(bar.dataset.action);
    if (!row) return;
    const [action, set, line, command, , , , begin, took, promised, price] = [...row.cells].map((cell) => cell.textContent.trim());
    const lane = bar.closest(".lane").querySelector(".name").textContent.trim();
    const end = bar.classList[1].replace("-", " ");
    const lines = [`${action}, set ${set}, line ${line}: ${command}`, `${lane}: ${end}`];
    if (end === row.dataset.outcome) {
      lines.push(`began at ${begin} s, took ${took} s` + (promised && `, ${promised} s promised`) + (price && `, price ${price}`));
    }
    tip.replaceChildren(...lines.map((text) => {
      const part = document.createElement("div");
      part.textContent = text;
      return part;
    }));
    tip.hidden = false;
    const box = bar.getBoundingClientRect();
    const width = tip.offsetWidth;
    const left = Math.min(Math.max(box.left, 8), document.documentElement.clientWidth - width - 8);
    tip.style.left = `${Math.max(left, 0) + window.scrollX}px`;
    tip.style.top = `${box.bottom + 6 + window.scrollY}px`;
    mark(bar.dataset.action);
  }

  const lanes = document.getElementById("lanes");
  lanes.addEventListener("pointerover", (event) => {
    const bar = event.target.closest(".bar");
    if (bar) tell(bar);
  });
  lanes.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") { tip.hidden = true; mark(null); }
  });
  lanes.addEventListener("click", (event) => {
    const bar = event.target.closest(".bar");
    if (bar) tell(bar); else { tip.hidden = true; mark(null); }
  });
  document.getElementById("actions").addEventListener("pointerover", (event) => {
    const row = event.target.closest("tr[data-action]");
    if (row) mark(row.dataset.action);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { tip.hidden = true; mark(null); }
  });
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const control of [filter, host, outcome]) control.addEventListener("input", apply);
  apply();
})();
