"use strict";

// Whatever comes from the emulator becomes text nodes, values and attributes, and never HTML.

const LOOK_EVERY = 1000; // milliseconds, or ten times as long as the last look took
const TEXT_TYPES = ["String", "DateTime", "Date", "Guid"]; // of Workflowsoft's fields: those that are strings in JSON

const $ = (selector) => document.querySelector(selector);
const shown = new WeakMap(); // element: the JSON it was made of
let version = ""; // of what is shown
let turn = 0; // of the looks: an answer that a later look has overtaken is dropped
let timer = 0;
let looking = null; // the last look
let ordering = Promise.resolve(); // the last order: they are sent one after the other
let before = null; // by instance: what was told of it when it was last seen

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// --- looking ---

function look() {
  clearTimeout(timer);
  looking = lookOnce();
  return looking;
}

async function lookOnce() {
  const mine = ++turn;
  const began = performance.now();
  const search = $("#search").value.trim();
  try {
    const address = "/_emulator/overview?" + new URLSearchParams({ search });
    const answer = await fetch(address, { headers: version ? { "If-None-Match": version } : {} });
    const seen = answer.status === 200 ? await answer.json() : null;
    if (mine !== turn) return looking;
    if (seen !== null) {
      version = answer.headers.get("ETag");
      show(seen, search);
    }
    if ($("#problem").dataset.lost) complain("");
  } catch {
    if (mine !== turn) return looking;
    complain("The emulator does not answer.");
    $("#problem").dataset.lost = "yes";
  }
  if (!document.hidden) timer = setTimeout(look, Math.max(LOOK_EVERY, 10 * (performance.now() - began)));
}

function lookAnew() {
  version = "";
  return look();
}

// --- showing ---

function show(seen, search) {
  $("#now").textContent = moment(seen.now);
  $("#now").dateTime = seen.now;
  $("#moved").textContent = seen.moved ? `(${duration(seen.moved)} ahead)` : "";
  $("#requests").textContent = `${seen.requests.toLocaleString("en")} requests served.`;
  for (const [name, api] of Object.entries(seen.apis)) showApi($(`[data-api=${name}]`), api, search);
  showList($("#broken"), seen.faults, (fault) => make("li", { tabindex: "-1" }, describe(fault)));
  $("#clear").hidden = seen.faults.length === 0;
  showFlags(seen.flags);
  fill($("#resetting [name=seed]"), seen.seeds.map((seed) => [seed, seed]));
  tellWhatChanged(seen.apis, search);
}

function showApi(section, api, search) {
  showList(section.querySelector(".cards"), api.instances, card);
  section.querySelector(".count").textContent = count(api, search);
  fill(section.querySelector("[name=what]"), api.starts.map((start) => [JSON.stringify(start), start.label]));
}

function count(api, search) {
  const all = api.total.toLocaleString("en");
  if (api.more) return `The newest ${api.instances.length} of ${search ? "those found in " : ""}${all}. Search to find others.`;
  if (search) return `${api.instances.length || "None"} found of ${all}.`;
  return api.total ? "" : "Nothing has been started yet.";
}

// Elements stay as long as what they show does, so that focus, open details and typed text stay too.
function showList(list, things, build) {
  const wanted = new Set(things.map((thing) => String(thing.id)));
  const there = new Map();
  for (const element of [...list.children]) {
    if (wanted.has(element.dataset.id)) there.set(element.dataset.id, element);
    else remove(element);
  }
  let next = list.firstElementChild;
  for (const thing of things) {
    const text = JSON.stringify(thing);
    let element = there.get(String(thing.id));
    if (element === undefined || shown.get(element) !== text) {
      const fresh = build(thing);
      fresh.dataset.id = thing.id;
      shown.set(fresh, text);
      if (element === undefined) list.insertBefore(fresh, next);
      else replace(element, fresh);
      element = fresh;
    }
    next = element.nextElementSibling;
  }
}

function remove(element) {
  const had = element.contains(document.activeElement);
  const heading = element.closest("section").querySelector("h2");
  element.remove();
  if (had) heading.focus();
}

function replace(old, fresh) {
  const same = (element, name) => fresh.querySelector(`[${name}="${CSS.escape(element.getAttribute(name))}"]`);
  for (const details of old.querySelectorAll("details")) {
    const its = same(details, "data-name");
    if (its) its.open = details.open;
  }
  for (const field of old.querySelectorAll("[data-type]")) {
    const its = same(field, "name");
    if (its && field.value !== field.dataset.shown) its.value = field.value;
  }
  const active = old.contains(document.activeElement) ? document.activeElement : null;
  old.replaceWith(fresh);
  if (active) ((active.dataset.key && same(active, "data-key")) || fresh).focus();
}

function card(one) {
  return make(
    "li",
    { class: "card", tabindex: "-1", "data-tone": one.tone },
    make(
      "div",
      {},
      make("h3", {}, one.title),
      make("p", { class: "ids" }, `${one.id} · ${one.where === "process" ? "process" : "item"} ${one.item}`),
    ),
    make(
      "div",
      {},
      make("p", { class: "step" }, one.step),
      make("p", { class: "held" }, make("span", { class: "badge" }, one.state), held(one)),
      one.note ? make("p", { class: "held" }, one.note) : null,
    ),
    make("div", { class: "acts" }, ...groups(one)),
    one.fields.length ? fields(one) : null,
    one.history.length ? history(one) : null,
  );
}

function held(one) {
  return one.holders.length ? ` held by ${one.holders.join(", ")}` : "";
}

function groups(one) {
  const people = [...new Set(one.acts.map((act) => act.by))];
  return people.map((by) =>
    make(
      "div",
      { role: "group", class: by ? "" : "quiet", "aria-label": by ? `As ${by}` : "Whole workflow" },
      by ? make("span", { "aria-hidden": "true" }, `as ${by}`) : null,
      ...one.acts.filter((act) => act.by === by).map((act) => button(one, act)),
    ),
  );
}

function button(one, act) {
  return make(
    "button",
    {
      type: "button",
      "aria-label": `${act.label} ${one.id}${act.by ? ` as ${act.by}` : ""}`,
      "data-key": `${act.label} ${act.by}`,
      "data-path": act.path,
      "data-body": JSON.stringify(act.body),
    },
    act.label,
  );
}

function history(one) {
  const rows = one.history.map((event) =>
    make(
      "li",
      {},
      make("time", { datetime: event.at }, moment(event.at)),
      make("span", {}, event.what, event.by ? make("em", {}, ` · ${event.by}`) : null),
      event.comment ? make("q", {}, event.comment) : null,
    ),
  );
  return make(
    "details",
    { "data-name": "history" },
    make("summary", { "data-key": "history" }, "History", make("span", { class: "hidden" }, ` of ${one.id}`)),
    make("ol", { class: "history" }, ...rows),
  );
}

function fields(one) {
  const missing = one.fields.some((field) => field.required && !field.read_only && textOf(field) === "");
  return make(
    "details",
    { "data-name": "fields", open: missing },
    make("summary", { "data-key": "fields" }, "Fields", make("span", { class: "hidden" }, ` of ${one.id}`)),
    make("div", { class: "fields" }, ...one.fields.map((field) => make("label", {}, label(field), input(field)))),
  );
}

function label(field) {
  return make("span", {}, field.label, make("small", {}, ` ${field.type}${field.required ? ", required" : ""}`));
}

function input(field) {
  const text = textOf(field);
  const known = { name: field.name, "data-key": field.name, "data-type": field.type, "data-shown": text };
  const options = field.options || (field.type.startsWith("Boolean") ? ["true", "false"] : null);
  if (options === null || field.read_only) {
    return make("input", { ...known, value: text, readonly: field.read_only, autocomplete: "off" });
  }
  const select = make("select", known);
  fill(select, (text === "" || field.type.endsWith("?") ? ["", ...options] : options).map((option) => [option, option]));
  select.value = text;
  return select;
}

function isText(type) {
  return TEXT_TYPES.includes(type.replace("?", ""));
}

function textOf(field) {
  if (field.json === null || field.json === "null") return "";
  return isText(field.type) ? JSON.parse(field.json) : field.json;
}

// Numbers go as they were typed: JavaScript would round the long ones.
function jsonOf(element) {
  const type = element.dataset.type;
  if (element.value === "" && type !== "String") return "null";
  if (isText(type)) return JSON.stringify(element.value);
  try {
    JSON.parse(element.value);
    return element.value;
  } catch {
    return JSON.stringify(element.value); // to be refused, in the emulator's words
  }
}

function showFlags(flags) {
  const turning = $("#turning");
  if (!turning.children.length) turning.append(...flags.map(turner));
  const turned = flags.filter((one) => one.value !== one.values[0]);
  for (const one of flags) {
    const element = turning.querySelector(`[name=${one.name}]`);
    // What is being typed stays, as long as the emulator has no other value than it had.
    if (shown.get(element) !== one.value) element.value = one.value;
    shown.set(element, one.value);
    element.closest("div").classList.toggle("turned", turned.includes(one));
  }
  $("#turned").textContent = turned.length ? `${turned.length} turned` : "";
}

function turner(one) {
  const name = { name: one.name, "aria-describedby": `why-${one.name}` };
  const element = one.number ? make("input", { ...name, type: "number", min: "0", step: "any" }) : make("select", name);
  if (!one.number) fill(element, one.values.map((value) => [value, value]));
  const label = make("label", {}, one.name.replaceAll("_", " "), element);
  return make("div", {}, label, make("small", { id: `why-${one.name}` }, one.why));
}

function fill(select, options) {
  const text = JSON.stringify(options);
  if (shown.get(select) === text) return;
  shown.set(select, text);
  select.replaceChildren(...options.map(([value, words]) => make("option", { value }, words)));
}

function describe(fault) {
  const what = [
    fault.status,
    fault.reset && `reset ${fault.reset} it took effect`,
    fault.delay && `${fault.delay} s slow`,
    fault.truncate !== null && `cut off after ${fault.truncate} bytes`,
  ];
  const how = what.filter(Boolean).join(", ") || "another answer";
  return `${how}: ${fault.method || "all"} ${fault.path}, ${fault.fired} of ${fault.times}`;
}

function moment(iso) {
  return `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC`;
}

function duration(seconds) {
  const parts = [[Math.floor(seconds / 86400), "d"], [Math.floor(seconds / 3600) % 24, "h"], [Math.floor(seconds / 60) % 60, "min"]];
  return parts.filter(([number]) => number).map((part) => part.join(" ")).join(" ") || `${seconds} s`;
}

// --- telling, for those who see the page and those who hear it ---

function tellWhatChanged(apis, search) {
  const now = new Map();
  for (const [name, api] of Object.entries(apis)) {
    for (const one of api.instances) {
      now.set(`${name} ${one.id}`, `${one.title} ${one.id}: ${one.step}, ${one.state}${held(one)}`);
    }
  }
  if (before !== null && before.search === search) {
    const news = [...now].filter(([id, text]) => before.now.get(id) !== text).map(([, text]) => text);
    if (news.length) tell(news.slice(0, 3).join(". ") + (news.length > 3 ? `. And ${news.length - 3} more.` : "."));
  }
  before = { now, search };
}

function tell(text) {
  $("#status").textContent = text;
}

function complain(text) {
  delete $("#problem").dataset.lost;
  $("#problem").textContent = text;
}

// --- acting ---

function order(path, body, { pressed = null, method = "POST", done = "" } = {}) {
  // A second click on what the first one has made disappear is none.
  ordering = ordering.then(() => (pressed === null || pressed.isConnected) && send(path, body, method, done));
  return ordering;
}

async function send(path, body, method, done) {
  try {
    const answer = await fetch(`/_emulator/${path}`, { method, body, headers: { "Content-Type": "application/json" } });
    complain(answer.ok ? "" : refusal(answer.status, await answer.json().catch(() => null)));
    if (answer.ok && done) tell(done);
    await look();
    return answer.ok;
  } catch {
    complain("The emulator does not answer.");
    return false;
  }
}

// Each API refuses in its own form.
function refusal(status, body) {
  const { error, errors, message, Message, ExceptionMessage } = body || {};
  const words = (error && error.message) || error || ExceptionMessage || Message || message || errors;
  return !words ? `Refused with ${status}.` : typeof words === "string" ? words : JSON.stringify(words);
}

document.addEventListener("click", (event) => {
  const pressed = event.target.closest("button[data-path]");
  if (pressed === null) return;
  const { path, body = "{}", method, done } = pressed.dataset;
  order(path, withFields(JSON.parse(body), pressed.closest(".card")), { pressed, method, done });
});

function withFields(body, card) {
  const parts = Object.entries(body).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  const typed = card === null ? [] : [...card.querySelectorAll("[data-type]")].filter((field) => field.value !== field.dataset.shown);
  if (typed.length) parts.push(`"fields": {${typed.map((field) => `${JSON.stringify(field.name)}: ${jsonOf(field)}`).join(", ")}}`);
  return `{${parts.join(", ")}}`;
}

function whenSent(form, act) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act(Object.fromEntries(new FormData(form)));
  });
}

for (const form of document.querySelectorAll(".start")) {
  whenSent(form, async ({ what, item_id: itemId }) => {
    const { path, body } = JSON.parse(what);
    if (await order(path, JSON.stringify(itemId === undefined ? body : { ...body, item_id: itemId }))) {
      for (const field of form.querySelectorAll("input")) field.value = "";
    }
  });
}
whenSent($("#breaking"), ({ kind, method, times, path }) =>
  order("faults", JSON.stringify({ ...JSON.parse(kind), method: method || null, times: Number(times), path }), { done: "A fault waits for its requests." }),
);
whenSent($("#resetting"), (wanted) => order("reset", JSON.stringify(wanted), { done: "Everything is as at the start." }));
whenSent($("#searching"), lookAnew);
$("#search").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(lookAnew, 150); // when the typing pauses
});
$("#turning").addEventListener("change", async ({ target }) => {
  const value = target.type === "number" ? target.valueAsNumber : target.value;
  await order("flags", JSON.stringify({ [target.name]: value }), { method: "PATCH", done: `${target.name} is ${value}.` });
  shown.delete(target); // a refused value goes back
  lookAnew();
});
document.addEventListener("visibilitychange", () => document.hidden || lookAnew());
look();
