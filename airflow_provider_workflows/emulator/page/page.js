"use strict";

// Data from the emulator becomes text nodes, values and attributes, never HTML.

const MIN_POLL_INTERVAL_MS = 1000; // or ten times the duration of the last poll, if that is longer
const TEXT_TYPES = ["String", "DateTime", "Date", "Guid"]; // Workflowsoft's field types whose JSON value is a string

const $ = (selector) => document.querySelector(selector);
const shown = new WeakMap(); // element: the JSON it was built from
let version = ""; // ETag of the overview that is shown
let pollNumber = 0; // a response that arrives after a later poll has started is dropped
let timer = 0;
let lastPoll = null; // promise of the last poll
let lastRequest = Promise.resolve(); // control requests are sent one after the other
let before = null; // by instance: the announced text of the last poll

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// --- polling ---

function poll() {
  clearTimeout(timer);
  lastPoll = pollOnce();
  return lastPoll;
}

async function pollOnce() {
  const own = ++pollNumber;
  const startedAt = performance.now();
  const search = $("#search").value.trim();
  try {
    const address = "/_emulator/overview?" + new URLSearchParams({ search });
    const response = await fetch(address, { headers: version ? { "If-None-Match": version } : {} });
    const overview = response.status === 200 ? await response.json() : null;
    if (own !== pollNumber) return lastPoll;
    if (overview !== null) {
      version = response.headers.get("ETag");
      show(overview, search);
    }
    if ($("#problem").dataset.lost) complain("");
  } catch {
    if (own !== pollNumber) return lastPoll;
    complain("The emulator does not respond.");
    $("#problem").dataset.lost = "yes";
  }
  if (!document.hidden) timer = setTimeout(poll, Math.max(MIN_POLL_INTERVAL_MS, 10 * (performance.now() - startedAt)));
}

function pollAll() {
  version = "";
  return poll();
}

// --- showing ---

function show(overview, search) {
  $("#now").textContent = moment(overview.now);
  $("#now").dateTime = overview.now;
  $("#moved").textContent = overview.moved ? `(${duration(overview.moved)} ahead)` : "";
  $("#requests").textContent = `${overview.requests.toLocaleString("en")} requests served.`;
  for (const [name, api] of Object.entries(overview.apis)) showApi($(`[data-api=${name}]`), api, search);
  showList($("#broken"), overview.faults, (fault) => make("li", { tabindex: "-1" }, describe(fault)));
  $("#clear").hidden = overview.faults.length === 0;
  showFlags(overview.flags);
  fill($("#resetting [name=seed]"), overview.seeds.map((seed) => [seed, seed]));
  announceChanges(overview.apis, search);
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

// An element stays while its data is unchanged. Focus, open details and typed text therefore stay, too.
function showList(list, things, build) {
  const ids = new Set(things.map((thing) => String(thing.id)));
  const existing = new Map();
  for (const element of [...list.children]) {
    if (ids.has(element.dataset.id)) existing.set(element.dataset.id, element);
    else remove(element);
  }
  let next = list.firstElementChild;
  for (const thing of things) {
    const text = JSON.stringify(thing);
    let element = existing.get(String(thing.id));
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

function card(instance) {
  return make(
    "li",
    { class: "card", tabindex: "-1", "data-tone": instance.tone },
    make(
      "div",
      {},
      make("h3", {}, instance.title),
      make("p", { class: "ids" }, `${instance.id} · ${instance.where === "process" ? "process" : "item"} ${instance.item}`),
    ),
    make(
      "div",
      {},
      make("p", { class: "step" }, instance.step),
      make("p", { class: "pending" }, make("span", { class: "badge" }, instance.state), pendingWith(instance)),
      instance.note ? make("p", { class: "pending" }, instance.note) : null,
    ),
    make("div", { class: "actions" }, ...groups(instance)),
    instance.fields.length ? fields(instance) : null,
    instance.history.length ? history(instance) : null,
  );
}

function pendingWith(instance) {
  return instance.pending_with.length ? ` pending with ${instance.pending_with.join(", ")}` : "";
}

function groups(instance) {
  const users = [...new Set(instance.actions.map((action) => action.by))];
  return users.map((by) =>
    make(
      "div",
      { role: "group", class: by ? "" : "quiet", "aria-label": by ? `As ${by}` : "Whole workflow" },
      by ? make("span", { "aria-hidden": "true" }, `as ${by}`) : null,
      ...instance.actions.filter((action) => action.by === by).map((action) => button(instance, action)),
    ),
  );
}

function button(instance, action) {
  return make(
    "button",
    {
      type: "button",
      "aria-label": `${action.label} ${instance.id}${action.by ? ` as ${action.by}` : ""}`,
      "data-key": `${action.label} ${action.by}`,
      "data-path": action.path,
      "data-body": JSON.stringify(action.body),
    },
    action.label,
  );
}

function history(instance) {
  const rows = instance.history.map((event) =>
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
    make("summary", { "data-key": "history" }, "History", make("span", { class: "hidden" }, ` of ${instance.id}`)),
    make("ol", { class: "history" }, ...rows),
  );
}

function fields(instance) {
  const missing = instance.fields.some((field) => field.required && !field.read_only && textOf(field) === "");
  return make(
    "details",
    { "data-name": "fields", open: missing },
    make("summary", { "data-key": "fields" }, "Fields", make("span", { class: "hidden" }, ` of ${instance.id}`)),
    make("div", { class: "fields" }, ...instance.fields.map((field) => make("label", {}, label(field), input(field)))),
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

// Numbers are sent as typed, because JavaScript would round long ones.
function jsonOf(element) {
  const type = element.dataset.type;
  if (element.value === "" && type !== "String") return "null";
  if (isText(type)) return JSON.stringify(element.value);
  try {
    JSON.parse(element.value);
    return element.value;
  } catch {
    return JSON.stringify(element.value); // the emulator rejects it with its own message
  }
}

function showFlags(flags) {
  const list = $("#flag-list");
  if (!list.children.length) list.append(...flags.map(flagInput));
  const changed = flags.filter((flag) => flag.value !== flag.values[0]);
  for (const flag of flags) {
    const element = list.querySelector(`[name=${flag.name}]`);
    // Text that is being typed stays while the value in the emulator is unchanged.
    if (shown.get(element) !== flag.value) element.value = flag.value;
    shown.set(element, flag.value);
    element.closest("div").classList.toggle("changed", changed.includes(flag));
  }
  $("#changed-flags").textContent = changed.length ? `${changed.length} changed` : "";
}

function flagInput(flag) {
  const name = { name: flag.name, "aria-describedby": `why-${flag.name}` };
  const element = flag.number ? make("input", { ...name, type: "number", min: "0", step: "any" }) : make("select", name);
  if (!flag.number) fill(element, flag.values.map((value) => [value, value]));
  const label = make("label", {}, flag.name.replaceAll("_", " "), element);
  return make("div", {}, label, make("small", { id: `why-${flag.name}` }, flag.why));
}

function fill(select, options) {
  const text = JSON.stringify(options);
  if (shown.get(select) === text) return;
  shown.set(select, text);
  select.replaceChildren(...options.map(([value, caption]) => make("option", { value }, caption)));
}

function describe(fault) {
  const what = [
    fault.status,
    fault.reset && `reset ${fault.reset} it took effect`,
    fault.delay && `${fault.delay} s slow`,
    fault.truncate !== null && `cut off after ${fault.truncate} bytes`,
  ];
  const how = what.filter(Boolean).join(", ") || "another response";
  return `${how}: ${fault.method || "all"} ${fault.path}, ${fault.fired} of ${fault.times}`;
}

function moment(iso) {
  return `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC`;
}

function duration(seconds) {
  const parts = [[Math.floor(seconds / 86400), "d"], [Math.floor(seconds / 3600) % 24, "h"], [Math.floor(seconds / 60) % 60, "min"]];
  return parts.filter(([number]) => number).map((part) => part.join(" ")).join(" ") || `${seconds} s`;
}

// --- announcing changes, also to screen readers ---

function announceChanges(apis, search) {
  const now = new Map();
  for (const [name, api] of Object.entries(apis)) {
    for (const instance of api.instances) {
      now.set(`${name} ${instance.id}`, `${instance.title} ${instance.id}: ${instance.step}, ${instance.state}${pendingWith(instance)}`);
    }
  }
  if (before !== null && before.search === search) {
    const news = [...now].filter(([id, text]) => before.now.get(id) !== text).map(([, text]) => text);
    if (news.length) announce(news.slice(0, 3).join(". ") + (news.length > 3 ? `. And ${news.length - 3} more.` : "."));
  }
  before = { now, search };
}

function announce(text) {
  $("#status").textContent = text;
}

function complain(text) {
  delete $("#problem").dataset.lost;
  $("#problem").textContent = text;
}

// --- control requests ---

function request(path, body, { pressed = null, method = "POST", done = "" } = {}) {
  // Ignore a second click on a button that the first click removed.
  lastRequest = lastRequest.then(() => (pressed === null || pressed.isConnected) && send(path, body, method, done));
  return lastRequest;
}

async function send(path, body, method, done) {
  try {
    const response = await fetch(`/_emulator/${path}`, { method, body, headers: { "Content-Type": "application/json" } });
    complain(response.ok ? "" : rejection(response.status, await response.json().catch(() => null)));
    if (response.ok && done) announce(done);
    await poll();
    return response.ok;
  } catch {
    complain("The emulator does not respond.");
    return false;
  }
}

// Each API has an error format of its own.
function rejection(status, body) {
  const { error, errors, message, Message, ExceptionMessage } = body || {};
  const found = (error && error.message) || error || ExceptionMessage || Message || message || errors;
  return !found ? `Rejected with status ${status}.` : typeof found === "string" ? found : JSON.stringify(found);
}

document.addEventListener("click", (event) => {
  const pressed = event.target.closest("button[data-path]");
  if (pressed === null) return;
  const { path, body = "{}", method, done } = pressed.dataset;
  request(path, withFields(JSON.parse(body), pressed.closest(".card")), { pressed, method, done });
});

function withFields(body, card) {
  const parts = Object.entries(body).map(([name, value]) => `${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  const typed = card === null ? [] : [...card.querySelectorAll("[data-type]")].filter((field) => field.value !== field.dataset.shown);
  if (typed.length) parts.push(`"fields": {${typed.map((field) => `${JSON.stringify(field.name)}: ${jsonOf(field)}`).join(", ")}}`);
  return `{${parts.join(", ")}}`;
}

function onSubmit(form, handle) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    handle(Object.fromEntries(new FormData(form)));
  });
}

for (const form of document.querySelectorAll(".start")) {
  onSubmit(form, async ({ what, item_id: itemId }) => {
    const { path, body } = JSON.parse(what);
    if (await request(path, JSON.stringify(itemId === undefined ? body : { ...body, item_id: itemId }))) {
      for (const field of form.querySelectorAll("input")) field.value = "";
    }
  });
}
onSubmit($("#breaking"), ({ kind, method, times, path }) =>
  request("faults", JSON.stringify({ ...JSON.parse(kind), method: method || null, times: Number(times), path }), { done: "The fault was added." }),
);
onSubmit($("#resetting"), (body) => request("reset", JSON.stringify(body), { done: "The emulator was reset." }));
onSubmit($("#searching"), pollAll);
$("#search").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(pollAll, 150); // when typing pauses
});
$("#flag-list").addEventListener("change", async ({ target }) => {
  const value = target.type === "number" ? target.valueAsNumber : target.value;
  await request("flags", JSON.stringify({ [target.name]: value }), { method: "PATCH", done: `${target.name} is ${value}.` });
  shown.delete(target); // shows the old value again if the new one was rejected
  pollAll();
});
document.addEventListener("visibilitychange", () => document.hidden || pollAll());
poll();
