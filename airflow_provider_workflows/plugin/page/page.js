"use strict";

// Names come from Procore and Workflowsoft: they become text nodes only, and links lead only to http and https.

const REFRESH_MS = 5_000; // or four times the duration of the last request, if that is longer
const HIDDEN_REFRESH_MS = 60_000;
const MAX_PEOPLE = 100; // buttons in the list by person
const PRODUCTS = { procore: "Procore", procore_legacy: "Procore Legacy", workflowsoft: "Workflowsoft" };
const FILTERS = ["person", "dag_id", "product", "overdue", "search", "sort", "descending", "page"];
const PREFIX = "/workflows-approvals/";

// Airflow can be served below a path.
const base = location.pathname.slice(0, location.pathname.lastIndexOf(PREFIX) + 1) || "/";
const isTask = location.pathname.endsWith("/task");
const airflow = findAirflow();

const $ = (selector) => document.querySelector(selector);
const shown = new WeakMap(); // element: the JSON it was built from
let query = new URLSearchParams();
let requestNumber = 0; // a response that arrives after a later request has started is dropped
let timer = 0;
let typing = 0;
let skew = 0; // milliseconds by which the server's clock is ahead of this one
let figures = ""; // the announced figures

// Return the window of Airflow if the page is in an iframe that Airflow's UI has made, else null.
function findAirflow() {
  try {
    return parent !== window && parent.document ? parent : null;
  } catch {
    return null; // a page of another site
  }
}

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

// A name of unknown direction does not turn the text around it.
const bdi = (text) => make("bdi", {}, text);

// --- links ---

// Airflow's sandbox forbids links out of the iframe, so Airflow's own document follows them.
function leave(address, attributes = {}) {
  const owner = (airflow || window).document;
  const link = owner.createElement("a");
  link.href = new URL(address, location.href).href;
  for (const [key, value] of Object.entries(attributes)) link.setAttribute(key, value);
  owner.body.append(link);
  link.click();
  link.remove();
}

function link(address, ...children) {
  return make("a", { href: address, "data-key": address }, ...children);
}

function externalLink(address, ...children) {
  if (!isWebAddress(address)) return make("span", {}, ...children);
  return make("a", { href: address, target: "_blank", rel: "noopener noreferrer", "data-key": address }, ...children);
}

function isWebAddress(text) {
  try {
    return ["http:", "https:"].includes(new URL(text).protocol);
  } catch {
    return false;
  }
}

function follow(event) {
  const pressed = event.target.closest("a[href]");
  if (pressed === null || airflow === null || event.button > 1) return;
  event.preventDefault();
  const inNewTab = pressed.target === "_blank" || event.button === 1 || event.ctrlKey || event.metaKey || event.shiftKey;
  if (pressed.hasAttribute("download")) leave(pressed.href, { download: pressed.getAttribute("download") });
  else leave(pressed.href, inNewTab ? { target: "_blank", rel: "noopener noreferrer" } : {});
}

// --- light and dark ---

function followTheme() {
  if (airflow === null) return; // the style sheet follows the system
  const root = airflow.document.documentElement;
  const apply = () => {
    const theme = ["dark", "light"].find((name) => root.classList.contains(name));
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  new MutationObserver(apply).observe(root, { attributeFilter: ["class"] });
  apply();
}

// --- filters and the address ---

function readAddress() {
  // Airflow's address shows the filters, too, so that a link to its page can have them.
  query = new URLSearchParams(location.search || (airflow && airflow.location.search) || "");
  for (const key of [...new Set(query.keys())]) if (![...FILTERS, "group"].includes(key)) query.delete(key);
}

function set(values, { keepPage = false } = {}) {
  clearTimeout(typing);
  if (!keepPage) query.delete("page");
  const search = $("#filters [name=search]").value.trim() || null; // perhaps still being typed
  for (const [key, value] of Object.entries({ search, ...values })) {
    if (value === null || value === false) query.delete(key);
    else query.set(key, value);
  }
  writeAddress();
  showFilters();
  return refresh();
}

function writeAddress() {
  const search = query.size ? `?${query}` : "";
  history.replaceState(null, "", location.pathname + search);
  if (airflow) airflow.history.replaceState(airflow.history.state, "", airflow.location.pathname + search);
  $("#csv").href = `api/waits.csv?${sent()}`;
}

function sent() {
  const known = new URLSearchParams(query);
  known.delete("group");
  return known;
}

function showFilters() {
  const form = $("#filters");
  for (const field of form.elements) {
    if (!field.name) continue;
    const value = query.get(field.name);
    if (field.type === "checkbox") field.checked = value === "true";
    else if (field.name === "search") {
      if (field !== document.activeElement) field.value = value || "";
    } else if (field.name === "sort") field.value = value || "since";
    else field.value = value === null ? "" : `=${value}`;
  }
  const sort = query.get("sort") || "since";
  const order = query.get("descending") === "true" ? "descending" : "ascending";
  for (const header of document.querySelectorAll("th[data-sort]")) {
    if (header.dataset.sort === sort) header.setAttribute("aria-sort", order);
    else header.removeAttribute("aria-sort");
  }
  $("#people").hidden = query.get("group") !== "true";
}

// The value of an option has a "=" before it, because "" is a person, too: the one who is not known.
function fill(select, key, all, options) {
  const chosen = query.get(key);
  const complete = chosen === null || options.some(([value]) => value === chosen) ? options : [...options, [chosen, chosen || "not known"]];
  const text = JSON.stringify([complete, chosen]);
  if (shown.get(select) === text) return;
  shown.set(select, text);
  select.replaceChildren(
    make("option", { value: "" }, all),
    ...complete.map(([value, caption]) => make("option", { value: `=${value}` }, caption)),
  );
  select.value = chosen === null ? "" : `=${chosen}`;
}

// --- requests ---

async function refresh() {
  clearTimeout(timer);
  const own = ++requestNumber;
  const startedAt = performance.now();
  try {
    // Airflow 3.1 does not encode the ids of the tab's address. Encoded text has no plus sign.
    const address = isTask ? `api/task${location.search.replaceAll("+", "%2B")}` : `api/waits?${sent()}`;
    const response = await fetch(address, { headers: { Accept: "application/json" } });
    if (response.status === 401) return login();
    const body = await response.json().catch(() => null);
    if (own !== requestNumber) return undefined;
    if (!response.ok || body === null) complain(rejection(response.status, body));
    else {
      complain("");
      if (isTask) showTask(body);
      else showList(body);
    }
  } catch (error) {
    if (own !== requestNumber) return undefined;
    if (!(error instanceof TypeError)) console.error(error);
    complain("Airflow does not respond. What is shown may be outdated.");
  }
  schedule(Math.max(REFRESH_MS, 4 * (performance.now() - startedAt)));
  return undefined;
}

function schedule(pause) {
  clearTimeout(timer);
  timer = setTimeout(refresh, document.hidden ? Math.max(HIDDEN_REFRESH_MS, pause) : pause);
}

function login() {
  complain("You are not logged in to Airflow.");
  leave(base);
}

function rejection(status, body) {
  const detail = body && body.detail;
  return typeof detail === "string" ? detail : `Airflow rejected the request with status ${status}.`;
}

async function readNow() {
  const button = $("#read");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true"); // a disabled button would lose the focus
  announce("Reading ...");
  try {
    const ids = new URLSearchParams(location.search.replaceAll("+", "%2B"));
    const filters = isTask ? new URLSearchParams({ dag_id: ids.get("dag_id"), search: ids.get("run_id") }) : sent();
    const response = await fetch(`api/read?${filters}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: "{}",
    });
    if (response.status === 401) return login();
    const body = await response.json().catch(() => null);
    announce(response.ok && body ? report(body) : rejection(response.status, body));
    await refresh();
  } catch {
    announce("Airflow does not respond.");
  } finally {
    button.removeAttribute("aria-disabled");
  }
  return undefined;
}

function report({ read, skipped, errors }) {
  const lines = [...skipped, ...errors].map(({ conn_id: id, reason }) => (id ? `${id}: ${reason}` : reason));
  return [`${number(read)} ${read === 1 ? "wait" : "waits"} read.`, ...new Set(lines)].join(" ");
}

// --- the list ---

function showList(body) {
  skew = Date.parse(body.as_of) - Date.now();
  $("#list").hidden = $("#csv").hidden = false;
  showReading(body);
  const { tiles } = body;
  $("#open").textContent = number(tiles.open);
  $("#overdue-count").textContent = number(tiles.overdue);
  $("#overdue-count").parentElement.classList.toggle("late", tiles.overdue > 0);
  $("#oldest").replaceChildren(tiles.oldest_since ? since(tiles.oldest_since) : "–");
  $("#median").textContent = tiles.median_age_seconds === null ? "–" : duration(tiles.median_age_seconds);

  const counted = body.people.map((assignee) => [assignee.name, `${assignee.name || "not known"} (${number(assignee.count)})`]);
  fill($("#filters [name=person]"), "person", "all", counted);
  fill($("#filters [name=dag_id]"), "dag_id", "all", body.dags.map((id) => [id, id]));
  fill($("#filters [name=product]"), "product", "all", body.products.map((id) => [id, PRODUCTS[id] || id || "not known"]));
  showPeople(body.people);
  showRows($("#rows"), body.rows);
  showTimes();
  showPages(body);

  const text = `${number(body.total)} open, ${number(tiles.overdue)} overdue.`;
  if (figures && figures !== text) announce(text);
  figures = text;
}

function showReading(body) {
  $("#read").hidden = !body.reads_allowed;
  $("#as-of").replaceChildren("Updated ", make("time", { datetime: new Date(now()).toISOString() }, clock(now())));
}

function showPeople(people) {
  const chosen = query.get("person");
  const list = people.slice(0, MAX_PEOPLE);
  replaceContent($("#people ul"), list.map((assignee) => [`person ${assignee.name}`, JSON.stringify([assignee, chosen === assignee.name]), () => person(assignee, chosen)]));
  $("#more-people").textContent = people.length > MAX_PEOPLE ? `And ${number(people.length - MAX_PEOPLE)} more people. Search to find them.` : "";
}

function person({ name: who, count, overdue }, chosen) {
  const attributes = { type: "button", "data-key": "person", "aria-pressed": String(chosen === who) };
  const button = make("button", attributes, bdi(who || "not known"), make("b", {}, number(count)), overdue ? `, ${number(overdue)} overdue` : "");
  button.addEventListener("click", () => set({ person: query.get("person") === who ? null : who }));
  return make("li", {}, button);
}

function showPages({ page, pages, total }) {
  if (Number(query.get("page") || 1) !== page) {
    query.set("page", page);
    writeAddress();
  }
  const filtered = ["person", "dag_id", "product", "overdue", "search"].some((key) => query.has(key));
  $("#count").textContent = total
    ? `${number(total)} ${total === 1 ? "wait" : "waits"}${filtered ? " found" : ""}`
    : filtered ? "No wait matches the filters." : "No task waits now.";
  $("table").hidden = total === 0;
  $("#pages").hidden = pages < 2;
  $("#page").textContent = `Page ${number(page)} of ${number(pages)}`;
  const move = (button, target, possible) => {
    button.setAttribute("aria-disabled", String(!possible)); // a disabled button would lose the focus
    button.dataset.page = target;
  };
  move($("#previous"), page - 1, page > 1);
  move($("#next"), page + 1, page < pages);
}

function showRows(list, rows) {
  replaceContent(list, rows.map((row) => [rowKey(row), JSON.stringify(row), () => rowOf(row)]));
}

// An element stays while its data is unchanged, and the focus stays on the same link of the same row.
function replaceContent(list, things) {
  const active = list.contains(document.activeElement) ? document.activeElement : null;
  const activeKey = active && active.closest("[data-id]").dataset.id;
  const existing = new Map([...list.children].map((element) => [element.dataset.id, element]));
  const fresh = things.map(([id, text, build]) => {
    const old = existing.get(id);
    if (old !== undefined && shown.get(old) === text) return old;
    const element = build();
    element.dataset.id = id;
    shown.set(element, text);
    return element;
  });
  if (fresh.length !== list.children.length || fresh.some((element, index) => element !== list.children[index])) {
    list.replaceChildren(...fresh);
  }
  if (active === null || document.activeElement === active) return;
  const row = fresh.find((element) => element.dataset.id === activeKey);
  const same = row && active.dataset.key && row.querySelector(`[data-key="${CSS.escape(active.dataset.key)}"]`);
  (same || (row && row.querySelector("[data-key]")) || $("#heading")).focus();
}

function rowKey(row) {
  return JSON.stringify([row.dag_id, row.run_id, row.task_id, row.map_index, row.asset, row.watcher]);
}

function rowOf(row) {
  const cells = Object.entries({
    Product: PRODUCTS[row.product] || row.product || "–",
    Item: itemOf(row),
    Step: stepOf(row),
    "Pending with": peopleOf(row),
    Since: sinceOf(row),
    Due: dueOf(row),
    Task: taskOf(row),
    Polling: pollingOf(row),
  });
  const attributes = { role: "row", class: row.overdue ? "late" : null };
  return make("tr", attributes, ...cells.map(([label, content]) => make("td", { role: "cell", "data-label": label }, make("div", {}, content))));
}

function lines(...parts) {
  const all = document.createDocumentFragment();
  const known = parts.filter((part) => part !== null);
  all.append(...(known.length ? known : ["–"]));
  return all;
}

function itemOf(row) {
  const item = row.item_id && [row.tool_type && row.tool_type.replaceAll("_", " "), row.item_id].filter(Boolean).join(" ");
  const title = item || (row.instance_id ? `instance ${row.instance_id}` : row.subject) || "–";
  const ids = [item && row.instance_id && `instance ${row.instance_id}`, row.project_id && `project ${row.project_id}`];
  return lines(
    externalLink(row.item_url, bdi(title)),
    row.workflow ? make("small", {}, bdi(row.workflow)) : null,
    ids.some(Boolean) ? make("small", {}, bdi(ids.filter(Boolean).join(" · "))) : null,
  );
}

function stepOf(row) {
  return lines(
    row.step ? bdi(row.step) : "–",
    row.subject && (row.item_id || row.instance_id) ? make("small", {}, "waits for: ", bdi(row.subject)) : null,
    row.last_error ? make("small", { class: "error" }, "Last error: ", bdi(row.last_error)) : null,
    row.note ? make("small", {}, row.note) : null,
  );
}

function peopleOf(row) {
  const people = row.assignees.map((name) => make("div", {}, bdi(name)));
  if (row.more_assignees) people.push(make("small", {}, `and ${number(row.more_assignees)} more`));
  return lines(...people);
}

function sinceOf(row) {
  if (row.since) return since(row.since);
  return row.started_at ? lines(since(row.started_at), make("small", {}, row.kind === "watcher" ? "watcher created" : "task started")) : "–";
}

function dueOf(row) {
  const badge = row.overdue ? make("div", { class: "overdue" }, "overdue") : null;
  const level = row.escalation_level ? make("small", {}, `escalation level ${number(row.escalation_level)}`) : null;
  return lines(badge, row.due ? due(row.due) : null, level);
}

function taskOf(row) {
  if (row.kind === "watcher") return lines(bdi(row.watcher), make("small", {}, "watcher of asset ", bdi(row.asset)));
  const dag = `${base}dags/${encodeURIComponent(row.dag_id)}`;
  const run = `${dag}/runs/${encodeURIComponent(row.run_id)}`;
  const mapped = row.map_index >= 0 ? `/mapped/${row.map_index}` : "";
  const task = `${run}/tasks/${encodeURIComponent(row.task_id)}${mapped}`;
  const label = row.map_index >= 0 ? ` [${row.label || row.map_index}]` : "";
  const state = row.state === "deferred" ? "" : `, ${row.state.replaceAll("_", " ")}`;
  return lines(
    link(task, bdi(row.task_id + label)),
    make("small", {}, "DAG ", link(dag, bdi(row.dag_id))),
    make("small", {}, "run ", link(run, bdi(row.run_id))),
    make("small", {}, `try ${row.try_number}${state}`),
  );
}

function pollingOf(row) {
  return lines(
    row.poll_interval === null ? null : make("div", {}, `every ${duration(row.poll_interval)}`),
    row.deadline ? make("small", {}, "until ", due(row.deadline)) : null,
    row.as_of ? make("small", {}, "as of ", since(row.as_of), " ago") : null,
  );
}

// --- the tab of a task ---

function showTask({ row, message, reads_allowed: allowed }) {
  skew = 0;
  $("#task").hidden = false;
  $("#heading").firstChild.textContent = "Approval ";
  $("#heading span").textContent = "What this task waits for";
  $("#nothing").textContent = row ? "" : message || "";
  showReading({ reads_allowed: allowed && row !== null });
  const text = JSON.stringify(row);
  if (shown.get($("#wait")) !== text) {
    shown.set($("#wait"), text);
    const parts = row && {
      Product: PRODUCTS[row.product] || row.product || "–",
      Item: itemOf(row),
      Step: stepOf(row),
      "Pending with": peopleOf(row),
      Since: sinceOf(row),
      Due: dueOf(row),
      Polling: pollingOf(row),
    };
    const hadFocus = $("#wait").contains(document.activeElement);
    $("#wait").replaceChildren(...Object.entries(parts || {}).flatMap(([label, content]) => [make("dt", {}, label), make("dd", {}, content)]));
    if (hadFocus) ($("#wait a") || $("#heading")).focus();
  }
  showTimes();
  const figure = row ? `${row.step || "Step not known"}, pending with ${row.assignees.join(", ") || "a person who is not known"}.` : message;
  if (figures && figures !== figure) announce(figure);
  figures = figure;
}

// --- times, in the viewer's zone ---

function now() {
  return Date.now() + skew;
}

function since(iso) {
  return time(iso, "age");
}

function due(iso) {
  return /^\d{4}-\d\d-\d\d$/.test(iso) ? make("time", { datetime: iso }, day(iso)) : time(iso, "due");
}

function time(iso, kind) {
  const at = Date.parse(iso);
  if (Number.isNaN(at)) return bdi(iso);
  const exact = new Date(at).toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
  return make("time", { datetime: iso, title: exact, "data-kind": kind }, relative(at, kind));
}

// A day has no zone.
function day(iso) {
  return new Date(`${iso}T00:00:00Z`).toLocaleDateString(undefined, { timeZone: "UTC", dateStyle: "medium" });
}

function clock(at) {
  return new Date(at).toLocaleTimeString();
}

function relative(at, kind) {
  const seconds = (now() - at) / 1000;
  if (kind === "age") return duration(Math.max(0, seconds));
  return seconds < 0 ? `in ${duration(-seconds)}` : `${duration(seconds)} ago`;
}

function showTimes() {
  for (const element of document.querySelectorAll("time[data-kind]")) {
    const text = relative(Date.parse(element.dateTime), element.dataset.kind);
    if (element.textContent !== text) element.textContent = text;
  }
}

function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 48 * 3600) return `${Math.floor(whole / 3600)} h`;
  return `${number(Math.floor(whole / 86400))} d`;
}

function number(value) {
  return value.toLocaleString("en");
}

function announce(text) {
  $("#status").textContent = text;
}

function complain(text) {
  if ($("#problem").textContent !== text) $("#problem").textContent = text;
}

// --- events ---

document.addEventListener("click", follow);
document.addEventListener("auxclick", follow);
document.addEventListener("visibilitychange", () => (document.hidden ? schedule(HIDDEN_REFRESH_MS) : refresh()));
$("#filters").addEventListener("submit", (event) => event.preventDefault());
$("#filters").addEventListener("change", ({ target }) => {
  if (target.name === "search") return;
  if (target.type === "checkbox") set({ [target.name]: target.checked || null });
  else if (target.name === "sort") set({ sort: target.value });
  else set({ [target.name]: target.value === "" ? null : target.value.slice(1) });
});
$("#filters [name=search]").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => set({}), 250); // when typing pauses
});
$("#reset").addEventListener("click", () => {
  $("#filters [name=search]").value = "";
  set(Object.fromEntries([...FILTERS, "group"].map((key) => [key, null])));
});
$("#read").addEventListener("click", readNow);
for (const header of document.querySelectorAll("th[data-sort]")) {
  header.addEventListener("click", () => {
    const { sort } = header.dataset;
    const turned = (query.get("sort") || "since") === sort && query.get("descending") !== "true";
    set({ sort, descending: turned || null });
  });
}
for (const button of document.querySelectorAll("#pages button")) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") set({ page: button.dataset.page }, { keepPage: true });
  });
}

followTheme();
if (!isTask) {
  readAddress();
  writeAddress();
  showFilters();
}
refresh();
