
"use strict";
(() => {
  const body = document.querySelector("#actions tbody");
  const HOST = 4, OUTCOME = 6;
  const numbers = new Set([0, 2, 5, 7, 8, 9, 10, 12]);
  const records = [...body.rows].map((row) => ({ row, cells: [...row.cells].map((cell) => cell.textContent.trim()) }));
  const listed = Math.max(records.length, 1);
  const rest = document.getElementById("rest");
  let above = [];
  for (const row of rest ? JSON.parse(rest.textContent) : []) {
    above = row.map((cell, column) => String(cell ?? above[column]));
    records.push({ row: null, cells: above });
  }
  const recordOf = new Map(records.map((record) => [record.cells[0], record]));
  const bars = [...document.querySelectorAll(".bar")];
  const actionsOf = (bar) => (bar.dataset.actions || bar.dataset.action).split(" ");
  const barsOf = new Map();
  for (const bar of bars) {
    for (const action of actionsOf(bar)) barsOf.set(action, [...(barsOf.get(action) || []), bar]);
  }
  const filter = document.getElementById("filter");
  const host = document.getElementById("host");
  const outcome = document.getElementById("outcome");
  const count = document.getElementById("count");
  const tip = document.getElementById("tip");

  function rowOf(record) {
    if (record.row) return record.row;
    const row = record.row = document.createElement("tr");
    row.id = `action-${record.cells[0]}`;
    Object.assign(row.dataset, { action: record.cells[0], host: record.cells[HOST], outcome: record.cells[OUTCOME] });
    record.cells.forEach((text, column) => {
      const cell = row.insertCell();
      if (numbers.has(column)) cell.className = "number";
      if (column === OUTCOME) cell.className = "outcome";
      if (column === 3) {
        cell.className = "command";
        cell.appendChild(document.createElement("code")).textContent = text;
      } else cell.textContent = text;
    });
    return row;
  }

  function apply() {
    const wanted = filter.value.trim().toLowerCase();
    const fitting = records.filter((record) => {
      record.words ??= record.cells.join("\n").toLowerCase();
      return record.words.includes(wanted)
        && (!host.value || record.cells[HOST] === host.value)
        && (!outcome.value || record.cells[OUTCOME] === outcome.value);
    });
    const fits = new Set(fitting.map((record) => record.cells[0]));
    body.replaceChildren(...fitting.slice(0, listed).map(rowOf));
    for (const bar of bars) bar.classList.toggle("out", !actionsOf(bar).some((action) => fits.has(action)));
    const some = fitting.length > listed ? `, the first ${listed} listed` : "";
    count.value = `${fitting.length} of ${records.length} shown${some}`;
  }

  let marked = null;
  function mark(action) {
    if (marked !== null) {
      for (const bar of barsOf.get(marked) || []) bar.classList.remove("shown");
      recordOf.get(marked)?.row?.classList.remove("shown");
    }
    marked = action;
    if (action === null) return;
    for (const bar of barsOf.get(action) || []) bar.classList.add("shown");
    recordOf.get(action)?.row?.classList.add("shown");
  }

  function tell(bar) {
    const record = recordOf.get(bar.dataset.action);
    if (!record) return;
    const [action, set, line, command, , , , begin, took, promised, price] = record.cells;
    const lane = bar.closest(".lane").querySelector(".name").textContent.trim();
    const end = bar.classList[1].replace("-", " ");
    const lines = [`${action}, set ${set}, line ${line}: ${command}`, `${lane}: ${end}`];
    const many = actionsOf(bar).length;
    if (many > 1) lines.unshift(`${many} short actions, the first:`);
    if (end === record.cells[OUTCOME]) {
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
