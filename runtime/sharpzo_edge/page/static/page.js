// The page's script. The server draws the pages; this selects, sends, and follows a run.

const $ = (query, within = document) => within.querySelector(query);
const $$ = (query, within = document) => [...within.querySelectorAll(query)];

// ---- Talking to the server ----------------------------------------------------------------------

async function ask(path, fields) {
  const options = fields && { method: "POST", body: fields instanceof FormData ? fields : new URLSearchParams(fields) };
  const answer = await fetch(path, options);
  if (answer.status === 401) location.assign("/enter");
  if (answer.ok) return answer;
  const text = await answer.text();
  let error = text;
  try { error = JSON.parse(text).error; } catch { /* it is plain text */ }
  throw new Error(error);
}

let newsEnds;
function tell(text, undo) {
  const news = $("#news");
  $("#trouble").textContent = "";
  news.textContent = text;
  if (undo) {
    const button = document.createElement("button");
    button.textContent = "Undo";
    button.addEventListener("click", undo, { once: true });
    news.append(button);
  }
  clearTimeout(newsEnds);
  newsEnds = setTimeout(() => { news.textContent = ""; }, undo ? 9000 : 4000);
}

function complain(error) {
  $("#news").textContent = "";
  const trouble = $("#trouble");
  trouble.textContent = error.message || String(error);
  const close = document.createElement("button");
  close.textContent = "Close";
  close.addEventListener("click", () => { trouble.textContent = ""; });
  trouble.append(close);
}

/** A listener whose errors are shown to the user. */
const guarded = (work) => async (event) => {
  try { await work(event); } catch (error) { complain(error); }
};

const counted = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
const percent = (fraction) => `${(100 * fraction).toFixed(1)} %`;

document.addEventListener("click", (event) => {
  const picker = event.target.closest("[data-do=pick]");
  if (picker) picker.nextElementSibling.click();
});

/** Files that are dropped on a place. Nothing else that is dropped does anything. */
function takeDrops(place, take) {
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  place.addEventListener("dragover", (event) => {
    if (hasFiles(event)) { event.preventDefault(); place.classList.add("over"); }
  });
  place.addEventListener("dragleave", (event) => {
    if (!place.contains(event.relatedTarget)) place.classList.remove("over");
  });
  place.addEventListener("drop", guarded(async (event) => {
    place.classList.remove("over");
    if (!hasFiles(event)) return;
    event.preventDefault();
    await take([...event.dataTransfer.files]);
  }));
}

// ---- Pictures -----------------------------------------------------------------------------------

function picturesTab(board) {
  const ASIDE = "put-aside";
  const MORE_AT = 600; // pixels before the end of a column
  const LOOK_AGAIN = 4000; // milliseconds
  const selected = new Map(); // word -> tile
  let anchor = null; // where a selection with shift begins
  const columns = $$(".class[data-class]", board);
  const listOf = (column) => $(".tiles", column);
  const columnOf = (word) => columns.find((each) => each.dataset.class === word);
  const tilesOf = (column) => $$(".tile", column);

  async function load(column, most) {
    const list = listOf(column);
    if (!list || column.dataset.loading) return;
    column.dataset.loading = "yes";
    try {
      const start = most ? 0 : list.children.length;
      const where = new URLSearchParams({ class: column.dataset.class, start, most: most || "" });
      const answer = await ask(`/tiles?${where}`);
      const html = await answer.text();
      setCount(column, Number(answer.headers.get("x-pictures")));
      if (most) replaceTiles(list, html);
      else list.insertAdjacentHTML("beforeend", html);
      $(".empty", column).hidden = list.children.length > 0;
    } finally {
      delete column.dataset.loading;
    }
  }

  /** New tiles in place of the old ones; what was selected and where the keyboard was stays. */
  function replaceTiles(list, html) {
    const focused = list.contains(document.activeElement) && document.activeElement.dataset.word;
    const top = list.scrollTop;
    list.innerHTML = html;
    for (const tile of $$(".tile", list)) {
      if (selected.has(tile.dataset.word)) mark(tile, true);
      if (tile.dataset.word === focused) tile.focus({ preventScroll: true });
    }
    list.scrollTop = top;
  }

  const isWhole = (column) => listOf(column).children.length >= Number(column.dataset.pictures);
  const reload = (column) => load(column, Math.max(60, listOf(column).children.length + 5));

  function setCount(column, n) {
    column.dataset.pictures = n;
    for (const each of $$(`[data-count-of="${CSS.escape(column.dataset.class)}"]`)) {
      each.textContent = n;
      if (each.hasAttribute("aria-label")) each.setAttribute("aria-label", counted(n, "picture"));
    }
  }

  // What cannot be read comes as a picture of one pixel.
  board.addEventListener("load", guarded(async (event) => {
    const image = event.target;
    if (image.naturalWidth !== 1) return;
    const tile = image.closest(".tile");
    const answer = await ask(`/reason?${new URLSearchParams({ of: tile.dataset.word })}`);
    const { reason } = await answer.json();
    const why = document.createElement("span");
    why.className = "why";
    why.textContent = reason;
    image.replaceWith(why);
    tile.classList.add("unreadable");
    tile.setAttribute("aria-label", `${tile.title}: ${reason}`);
  }), true);

  // ---- Selecting

  function mark(tile, on) {
    tile.setAttribute("aria-selected", String(on));
    tile.draggable = on;
    if (on) selected.set(tile.dataset.word, tile);
    else selected.delete(tile.dataset.word);
  }

  function showSelection() {
    $("#selection").hidden = selected.size === 0;
    $("#n-selected").textContent = selected.size;
  }

  function clear() {
    for (const tile of $$('.tile[aria-selected="true"]', board)) mark(tile, false);
    selected.clear();
    showSelection();
  }

  function selectRange(from, to) {
    const tiles = tilesOf(to.closest(".class"));
    const [a, b] = [tiles.indexOf(from), tiles.indexOf(to)].sort((x, y) => x - y);
    if (a < 0) return mark(to, true);
    for (const tile of tiles.slice(a, b + 1)) mark(tile, true);
  }

  function press(tile, withShift) {
    if (withShift && anchor?.isConnected) selectRange(anchor, tile);
    else mark(tile, !selected.has(tile.dataset.word));
    if (!withShift) anchor = tile;
    showSelection();
  }

  function focusOn(tile) {
    for (const each of $$('.tile[tabindex="0"]', tile.parentElement)) each.tabIndex = -1;
    tile.tabIndex = 0;
    tile.focus();
  }

  // A mouse that is pressed on a picture and drawn over others selects them all.
  let painting = null;
  board.addEventListener("pointerdown", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile || event.pointerType !== "mouse" || event.button || selected.has(tile.dataset.word)) return;
    painting = { from: tile, moved: false };
  });
  board.addEventListener("pointerover", (event) => {
    const tile = event.target.closest(".tile");
    if (!painting || !tile || tile === painting.from || tile.parentElement !== painting.from.parentElement) return;
    painting.moved = true;
    selectRange(painting.from, tile);
    showSelection();
  });
  document.addEventListener("pointerup", () => { setTimeout(() => { painting = null; }); });

  board.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile || painting?.moved) return;
    focusOn(tile);
    press(tile, event.shiftKey);
  });
  board.addEventListener("dblclick", guarded(async (event) => {
    const tile = event.target.closest(".tile");
    if (tile) look(tile);
  }));

  board.addEventListener("focusin", (event) => {
    if (event.target.matches(".tiles") && event.target.children.length) {
      focusOn($('.tile[tabindex="0"]', event.target) || event.target.children[0]);
    }
  });

  board.addEventListener("keydown", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const tiles = tilesOf(tile.closest(".class"));
    const here = tiles.indexOf(tile);
    const across = getComputedStyle(tile.parentElement).gridTemplateColumns.split(" ").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
    const to = { Home: 0, End: tiles.length - 1 }[event.key] ?? (step && here + step);
    if (to !== undefined) {
      const next = tiles[to];
      if (next) {
        focusOn(next);
        if (event.shiftKey) { anchor ??= tile; selectRange(anchor.isConnected ? anchor : tile, next); showSelection(); }
      }
    } else if (event.key === " ") press(tile, event.shiftKey);
    else if (event.key === "Enter") look(tile);
    else if (event.key === "a" && (event.ctrlKey || event.metaKey)) {
      for (const each of tiles) mark(each, true);
      showSelection();
    } else if (event.key === "Escape") clear();
    else if (event.key === "m" && selected.size) $("#targets button").focus();
    else if (event.key === "Tab" && !event.shiftKey) return leave(event, tile.parentElement);
    else return;
    event.preventDefault();
  });

  /** Tab leaves a list of pictures, whichever of them has the focus; the list itself would take it back. */
  function leave(event, list) {
    list.tabIndex = -1;
    setTimeout(() => { list.tabIndex = 0; });
  }

  // ---- Moving

  async function move(words, to) {
    const sources = new Map();
    for (const word of words) {
      const from = word.startsWith(".put-aside/") ? ASIDE : word.split("/")[0];
      sources.set(from, [...(sources.get(from) || []), word]);
    }
    const undo = [];
    for (const [from, each] of sources) {
      const path = to === ASIDE ? "/put-aside" : "/move";
      const answer = await ask(path, { to, pictures: each.join("\n") });
      undo.push([from, (await answer.json()).moved]);
    }
    clear();
    await Promise.all([to, ...sources.keys()].map((each) => columnOf(each)).filter(Boolean).map(reload));
    return undo;
  }

  async function moveSelected(to) {
    const words = [...selected.keys()];
    if (!words.length) return;
    const undo = await move(words, to);
    const title = columnOf(to).dataset.title;
    tell(`${counted(words.length, "picture")} ${to === ASIDE ? title : `moved to ${title}`}`, guarded(async () => {
      for (const [from, moved] of undo) await move(moved, from);
      tell("Undone");
    }));
  }

  for (const column of columns.filter((each) => each.dataset.class !== ASIDE && !("link" in each.dataset))) {
    const button = document.createElement("button");
    button.textContent = column.dataset.title;
    button.addEventListener("click", guarded(() => moveSelected(column.dataset.class)));
    $("#targets").append(button);
  }
  $("#selection").addEventListener("click", guarded(async (event) => {
    const what = event.target.closest("button")?.dataset.do;
    if (what === "clear") clear();
    else if (what === "aside") await moveSelected(ASIDE);
    else if (what === "view") look([...selected.values()].at(-1));
  }));

  board.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("application/x-sharpzo", "selected");
    event.dataTransfer.effectAllowed = "move";
  });
  for (const column of columns.filter(listOf)) {
    takeDrops(column, (files) => add(column, files));
    const isOurs = (event) => [...event.dataTransfer.types].includes("application/x-sharpzo");
    column.addEventListener("dragover", (event) => {
      if (isOurs(event)) { event.preventDefault(); column.classList.add("over"); }
    });
    column.addEventListener("drop", guarded(async (event) => {
      if (!isOurs(event)) return;
      event.preventDefault();
      column.classList.remove("over");
      await moveSelected(column.dataset.class);
    }));
  }

  // ---- Adding

  async function add(column, files) {
    if (column.dataset.class === ASIDE) throw new Error("Drop pictures on a class. Put aside is for pictures that are here already.");
    const refused = [];
    let n = 0;
    for (const file of files) {
      tell(`Adding ${n + refused.length + 1} of ${counted(files.length, "picture")}…`);
      const form = new FormData();
      form.append("picture", file);
      const answer = await ask(`/pictures?${new URLSearchParams({ to: column.dataset.class })}`, form);
      const found = await answer.json();
      n += found.taken.length;
      refused.push(...found.refused);
    }
    await reload(column);
    tell(`${counted(n, "picture")} added to ${column.dataset.title}`);
    if (refused.length) {
      const more = refused.length > 3 ? ` and ${refused.length - 3} more` : "";
      complain(new Error(`Not added: ${refused.slice(0, 3).map((each) => `${each.name} (${each.reason})`).join("; ")}${more}`));
    }
  }

  board.addEventListener("change", guarded(async (event) => {
    if (event.target.dataset.do !== "add") return;
    const files = [...event.target.files];
    event.target.value = "";
    await add(event.target.closest(".class"), files);
  }));

  // ---- Classes

  $("#new-class").addEventListener("submit", guarded(async (event) => {
    event.preventDefault();
    await ask("/classes", { name: event.target.name.value });
    location.reload();
  }));

  const edit = $("#edit");
  let edited = null;
  board.addEventListener("click", (event) => {
    if (!event.target.closest("[data-do=edit]")) return;
    edited = event.target.closest(".class");
    const form = $("#edit-form");
    form.elements.name.value = edited.dataset.title;
    form.elements.words.value = edited.dataset.words;
    edit.showModal();
  });
  edit.addEventListener("click", (event) => { if (event.target.dataset.do === "close") edit.close(); });
  $("#edit-form").addEventListener("submit", guarded(async (event) => {
    const form = event.target;
    await ask("/class", {
      class: edited.dataset.class, name: form.elements.name.value, words: form.elements.words.value,
    });
    location.reload();
  }));

  function look(tile) {
    const dialog = $("#look");
    $("img", dialog).src = `/view?${new URLSearchParams({ of: tile.dataset.word })}`;
    $("img", dialog).alt = tile.title;
    $("#look-name").textContent = tile.title;
    dialog.showModal();
  }
  $("#look").addEventListener("click", (event) => { if (event.target.dataset.do === "close") $("#look").close(); });

  // ---- Coming and going

  for (const column of columns.filter(listOf)) {
    listOf(column).addEventListener("scroll", guarded(async () => {
      const list = listOf(column);
      if (list.scrollTop + list.clientHeight > list.scrollHeight - MORE_AT && !isWhole(column)) await load(column);
    }), { passive: true });
  }
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      guarded(() => load(target))();
    }
  }, { root: board, rootMargin: "0px 600px" });
  for (const column of columns.filter(listOf)) seen.observe(column);

  /** What was changed from outside appears. */
  async function lookAgain() {
    if (document.hidden || $("dialog[open]")) return;
    const found = await (await ask("/contents")).json();
    const names = columns.map((each) => each.dataset.class).filter((each) => each !== ASIDE);
    if (found.classes.map(([word]) => word).join() !== names.join()) {
      if (!selected.size && document.activeElement.tagName !== "INPUT") location.reload();
      return;
    }
    for (const [word, n, changed] of found.classes) {
      const column = columnOf(word);
      if (changed !== column.dataset.changed && listOf(column)) {
        column.dataset.changed = changed;
        if (listOf(column).children.length || n) await reload(column);
      }
    }
    if (found.aside !== Number(columnOf(ASIDE)?.dataset.pictures ?? 0)) await reload(columnOf(ASIDE));
  }
  setInterval(() => lookAgain().catch(() => {}), LOOK_AGAIN);
}

// ---- Tune ---------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
function draw(svg, name, attributes, text) {
  const found = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  if (text !== undefined) found.textContent = text;
  svg.append(found);
}

/** Round values from 0 to the highest, four or five of them: 0, 300, 600, ... */
function ticks(high) {
  const power = 10 ** Math.floor(Math.log10(high / 4));
  const step = power * [1, 2, 2.5, 5, 10].find((each) => each * power >= high / 5);
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => i * step);
}

/** A curve for each of the two sets of pictures: looks -> values by queries. */
function drawChart(svg, looks, measure, spell) {
  const [width, height] = [svg.clientWidth || 600, svg.clientHeight || 190];
  const [left, right, top, bottom] = [46, 10, 8, 24];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  const values = looks.flatMap((look) => [look.train, look.val]).filter(Boolean).map((each) => each[measure]);
  if (!values.length) return;
  const last = Math.max(looks.at(-1).queries, 1);
  const high = measure === "accuracy" ? 1 : Math.max(...values) * 1.05;
  const x = (queries) => left + (queries / last) * (width - left - right);
  const y = (value) => top + (1 - value / high) * (height - top - bottom);
  for (const value of ticks(high)) {
    draw(svg, "line", { class: "grid-line", x1: left, x2: width - right, y1: y(value), y2: y(value) });
    draw(svg, "text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, spell(value));
  }
  for (const queries of ticks(last)) {
    const anchor = x(queries) > width - 40 ? "end" : "middle";
    draw(svg, "text", { x: x(queries), y: height - 6, "text-anchor": anchor }, queries.toLocaleString("en"));
  }
  const second = looks.find((look) => look.where.startsWith("stage 2"));
  if (second) draw(svg, "line", { class: "stage-line", x1: x(second.queries), x2: x(second.queries), y1: top, y2: height - bottom });
  for (const [set, name] of [["train", "shots"], ["val", "val"]]) {
    const points = looks.filter((look) => look[set]).map((look) => `${x(look.queries).toFixed(1)},${y(look[set][measure]).toFixed(1)}`);
    if (points.length) draw(svg, "polyline", { class: `line ${name}`, points: points.join(" ") });
  }
  const latest = looks.at(-1);
  const said = [["on the shots", latest.train], ["on validation pictures", latest.val]].filter(([, each]) => each);
  svg.setAttribute("aria-label", `${measure} by queries: ${said.map(([name, each]) => `${spell(each[measure])} ${name}`).join(", ")} after ${latest.queries} queries`);
}

function tuneTab(place) {
  const WORDS = { none: "Not started yet.", running: "Running.", interrupted: "Stopped. What it had done is saved.", finished: "Finished." };
  let looks = [];
  let state = null;

  const form = $("#choices");
  const fields = () => Object.fromEntries(new FormData(form));

  let asked = 0;
  async function forecast() {
    const plan = $("#plan");
    const number = ++asked; // an answer counts only while nothing newer was asked
    plan.setAttribute("aria-busy", "true");
    try {
      const found = await (await ask("/plan", fields())).json();
      if (number !== asked) return;
      if (found.problem) throw new Error(found.problem);
      plan.innerHTML = '<dl class="figures plan"></dl><details class="command"><summary>The same in a terminal</summary><p class="mono"></p></details>';
      const lines = [
        ["time, about", found.likely],
        ["pictures", found.pictures.toLocaleString("en")],
        ["queries, at most", Math.round(found.queries).toLocaleString("en")],
        ["memory, at most", `${Math.round(found.plan.peak_mib)} MiB`],
      ];
      for (const [name, value] of lines) {
        const line = document.createElement("div");
        const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
        [dt.textContent, dd.textContent] = [name, value];
        line.append(dt, dd);
        $("dl", plan).append(line);
      }
      $(".mono", plan).textContent = found.command;
    } catch (error) {
      if (number !== asked) return;
      const problem = document.createElement("p");
      problem.className = "problem";
      problem.textContent = error.message;
      plan.replaceChildren(problem);
    }
    plan.setAttribute("aria-busy", "false");
  }

  function show() {
    $("#curves").hidden = looks.length < 2;
    drawChart($("#accuracy-chart"), looks, "accuracy", percent0);
    drawChart($("#loss-chart"), looks, "loss", (value) => value.toFixed(2));
    const latest = looks.at(-1);
    if (!latest) return;
    $("#f-stage").textContent = latest.where.split("  ")[0];
    $("#f-queries").textContent = latest.queries.toLocaleString("en");
    $("#f-loss").textContent = latest.train.loss.toFixed(3);
    $("#f-train").textContent = percent(latest.train.accuracy);
    $("#f-val").textContent = latest.val ? percent(latest.val.accuracy) : "–";
  }
  const percent0 = (value) => `${Math.round(100 * value)} %`;

  function showRun(run) {
    const changed = run.state !== state;
    state = run.state;
    place.dataset.state = state;
    $("#state").textContent = run.error || WORDS[state];
    $("#state").classList.toggle("problem", Boolean(run.error));
    $("#status").textContent = state === "running" ? run.status : "";
    if (run.rss_mib) $("#f-memory").textContent = `${run.rss_mib} / ${run.peak_rss_mib} MiB`;
    $("#said").replaceChildren(...run.said.map((line) => {
      const item = document.createElement("li");
      item.textContent = line;
      return item;
    }));
    // A prompt that another run made is replaced only where the user asks for it, after tune has refused to.
    const isOffered = ({ dataset }) => dataset.when === (state === "none" && run.error && dataset.do === "again" ? "interrupted" : state);
    for (const button of $$("#run-buttons button")) button.hidden = !isOffered(button);
    for (const field of form.elements) field.disabled = state === "running";
    if (changed && state !== "running") forecast();
  }

  $("#run-buttons").addEventListener("click", guarded(async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    button.disabled = true;
    try {
      if (button.dataset.do === "stop") await ask("/stop", {});
      else await ask("/start", { ...fields(), again: button.dataset.do === "again" ? "yes" : "no" });
    } finally {
      button.disabled = false;
    }
  }));
  form.addEventListener("change", forecast);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("resize", show);

  const source = new EventSource("/events");
  source.addEventListener("run", (event) => showRun(JSON.parse(event.data)));
  source.addEventListener("looks", (event) => { looks = JSON.parse(event.data); show(); });
  source.addEventListener("look", (event) => { looks.push(JSON.parse(event.data)); show(); });
  addEventListener("pagehide", () => source.close());
}

// ---- Result -------------------------------------------------------------------------------------

function resultTab(place) {
  const SLOW = 3000; // milliseconds between two looks at a run that goes on
  let n = 0;
  let open = null; // the correction that is shown large

  async function load() {
    place.setAttribute("aria-busy", "true");
    place.innerHTML = await (await ask("/report")).text();
    place.setAttribute("aria-busy", "false");
    sortTables();
    $("#look-targets").replaceChildren($("#target-list")?.content.cloneNode(true) ?? "");
  }

  /** The report's own script makes its tables sortable; it runs once for each report. */
  function sortTables() {
    const script = document.createElement("script");
    script.src = "/report.js";
    script.addEventListener("load", () => script.remove());
    document.head.append(script);
  }

  async function correct(item, path, to, title) {
    const answer = await ask(path, { to, pictures: item.dataset.word });
    const [word] = (await answer.json()).moved;
    const before = item.dataset.word;
    item.classList.add("moved");
    item.dataset.word = word;
    for (const button of $$("button", item)) button.disabled = true;
    count(1);
    tell(`${item.dataset.name} moved to ${title}`, guarded(async () => {
      const back = await ask("/move", { to: before.split("/")[0], pictures: word });
      item.dataset.word = (await back.json()).moved[0];
      item.classList.remove("moved");
      for (const button of $$("button", item)) button.disabled = false;
      count(-1);
      tell("Undone");
    }));
  }

  function count(change) {
    n += change;
    $("#corrected").hidden = n === 0;
    $("#corrected p").textContent = `${counted(n, "picture")} corrected. A new run learns from it.`;
  }

  place.addEventListener("click", guarded(async (event) => {
    const button = event.target.closest("button[data-do]");
    const item = button?.closest(".correction");
    if (!item) return;
    if (button.dataset.do === "move") await correct(item, "/move", button.dataset.to, button.dataset.title);
    else if (button.dataset.do === "look") {
      open = item;
      $("#look img").src = `/view?${new URLSearchParams({ of: item.dataset.word })}`;
      $("#look img").alt = item.dataset.name;
      $("#look-name").textContent = item.dataset.name;
      $("#look").showModal();
    }
  }));
  $("#look").addEventListener("click", guarded(async (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    $("#look").close();
    if (button.dataset.to) await correct(open, "/move", button.dataset.to, button.textContent);
    else if (button.dataset.do === "aside") await correct(open, "/put-aside", "", "put aside");
  }));
  $("#corrected button").addEventListener("click", guarded(async () => {
    await ask("/start", { again: "yes" });
    location.assign("/tune");
  }));

  let state = null;
  let looked = 0;
  let isNew = true;
  const source = new EventSource("/events");
  const refresh = guarded(async () => { looked = Date.now(); isNew = false; await load(); });
  source.addEventListener("run", (event) => {
    const run = JSON.parse(event.data);
    $("#result-state").textContent = { running: "The run goes on: this is how far it is.", interrupted: "The run was stopped before its end." }[run.state] || "";
    if (run.state !== state && state !== null) isNew = true;
    state = run.state;
    if (isNew && Date.now() - looked > SLOW) refresh();
  });
  source.addEventListener("look", () => { isNew = true; });
  addEventListener("pagehide", () => source.close());
  refresh();
}

// ---- Try ----------------------------------------------------------------------------------------

function tryTab(place) {
  let shownUrl = null;

  async function tryIt([file]) {
    if (!file) return;
    if (shownUrl) URL.revokeObjectURL(shownUrl);
    $("#try-picture").src = shownUrl = URL.createObjectURL(file);
    $("#try-answer").hidden = false;
    $("#try-labels").replaceChildren();
    $("#try-none").hidden = true;
    $("#try-seconds").textContent = "Looking…";
    const form = new FormData();
    form.append("picture", file);
    try {
      const found = await (await ask("/try", form)).json();
      $("#try-labels").replaceChildren(...found.labels.map((label, i) => {
        const item = document.createElement("li");
        const [name, score] = ["span", "span"].map((each) => document.createElement(each));
        name.textContent = label;
        const bar = document.createElementNS(SVG, "svg");
        bar.setAttribute("aria-hidden", "true");
        draw(bar, "rect", { class: "track", width: "100%", height: 12, rx: 6 });
        draw(bar, "rect", { class: "fill", width: `${100 * found.scores[i]}%`, height: 12, rx: 6 });
        score.className = "score";
        score.textContent = percent(found.scores[i]);
        item.append(name, bar, score);
        return item;
      }));
      $("#try-none").hidden = !found.none;
      $("#try-seconds").textContent = `${found.seconds.toFixed(2)} s`;
    } catch (error) {
      $("#try-answer").hidden = true;
      throw error;
    }
  }

  takeDrops(place, tryIt);
  place.addEventListener("change", guarded(async (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    await tryIt(files);
  }));
}

for (const [query, start] of [["#board", picturesTab], ["#tune", tuneTab], ["#report", resultTab], ["#try-drop", tryTab]]) {
  const place = $(query);
  if (place) start(place);
}
