"use strict";
// Reads charts out at the pointer, and lets the reader walk through the groups. Text of
// a completion only ever reaches the page through textContent.

(function charts() {
  const all = [...document.querySelectorAll("svg[data-hover]")].map((svg) => ({
    svg, ...JSON.parse(svg.dataset.hover),
    cross: svg.querySelector(".cross"), at: svg.querySelector(".at"),
    steps: svg.querySelector(".steps"),
    outs: [...svg.querySelectorAll("[data-series]")],
  }));
  for (const chart of all) {
    chart.width = chart.svg.viewBox.baseVal.width;
    chart.last = chart.outs.map((out) => out.textContent);
    chart.svg.addEventListener("pointermove", (event) => show(chart, event));
    chart.svg.addEventListener("pointerdown", (event) => show(chart, event));
    chart.svg.addEventListener("pointerleave", () => all.forEach(clear));
  }

  function show(chart, event) {
    const box = chart.svg.getBoundingClientRect();
    const pixel = ((event.clientX - box.left) / box.width) * chart.width;
    const part = (pixel - chart.left) / (chart.right - chart.left);
    const x = chart.range[0] + part * (chart.range[1] - chart.range[0]);
    const at = own(chart, x);
    for (const other of all) if (other.axis === chart.axis) read(other, at);
  }

  // The step nearest to x at which the chart holds a value.
  function own(chart, x) {
    return chart.series
      .map((one) => one.x[nearest(one.x, x)])
      .reduce((a, b) => (Math.abs(b - x) < Math.abs(a - x) ? b : a));
  }

  function read(chart, asked) {
    const [low, high] = chart.range;
    if (asked < low || asked > high) return clear(chart);
    const at = own(chart, asked);
    const x = chart.left + ((at - low) / (high - low)) * (chart.right - chart.left);
    chart.cross.setAttribute("x1", x);
    chart.cross.setAttribute("x2", x);
    chart.cross.style.visibility = "visible";
    chart.steps.style.visibility = "hidden";
    chart.at.setAttribute("x", Math.min(Math.max(x, chart.left + 12), chart.right - 24));
    chart.at.textContent = `${chart.axis} ${at}`;
    chart.outs.forEach((out) => {
      const index = Number(out.dataset.series);
      const one = chart.series[index];
      const i = nearest(one.x, at);
      const strong = format(one.strong[i], chart.percent);
      const raw = format(one.raw[i], chart.percent);
      const alone = chart.series.length === 1;
      out.textContent = !alone ? strong
        : raw + (raw === strong ? "" : ` (mean ${strong})`);
      if (alone) out.classList.add("reading");
    });
    const title = chart.svg.querySelector(".unit");
    if (title && chart.series.length === 1) title.style.visibility = "hidden";
  }

  function clear(chart) {
    chart.cross.style.visibility = "hidden";
    chart.steps.style.visibility = "";
    chart.at.textContent = "";
    chart.outs.forEach((out, i) => { out.textContent = chart.last[i]; });
    chart.outs.forEach((out) => out.classList.remove("reading"));
    const title = chart.svg.querySelector(".unit");
    if (title) title.style.visibility = "";
  }

  function nearest(xs, x) {
    let low = 0;
    let high = xs.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (xs[middle] < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
  }

  function format(value, percent) {
    if (percent) return `${(100 * value).toFixed(1)}%`;
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 1e-3 || size >= 1e9) return Number(value.toPrecision(3)).toExponential().replace("+", "");
    if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
    if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
    return size >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  }
})();

(function browser() {
  const runs = JSON.parse(document.getElementById("groups-data").textContent);
  const root = document.getElementById("browser");
  if (!root || !runs.length) return;
  const now = { run: 0, step: runs[0].steps.length - 1, group: 0, sort: "advantage" };
  const orders = { advantage: "advantage", reward: "reward", tokens: "tokens",
    sample: "order of sampling" };

  // Makes an element; strings among the children become text, never markup.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  const slider = make("input", { type: "range", min: 0, "aria-label": "step",
    oninput: () => { now.step = Number(slider.value); draw(); } });
  const output = make("output");
  const prompts = make("div", { class: "prompts" });
  const panel = make("div", { class: "group" });
  // Open on a group that taught something, if there is one.
  const last = runs[0].steps[now.step].groups;
  now.group = Math.max(0, last.findIndex((g) => g.rows.some((r) => sign(r.advantage))));
  root.replaceChildren(toolbar(), make("div", { class: "split" }, prompts, panel));
  draw();

  function toolbar() {
    const bar = make("div", { class: "bar" });
    if (runs.length > 1) {
      bar.append(make("label", {}, "Run", choice(runs.map((r, i) => [i, r.name]), 0,
        (value) => {
          const step = runs[now.run].steps[now.step].step;
          now.run = Number(value);
          now.step = closest(runs[now.run].steps, step);
          draw();
        })));
    }
    bar.append(
      make("label", { class: "stepper" }, "Step", slider, output),
      make("label", {}, "Sort by", choice(Object.entries(orders), now.sort,
        (value) => { now.sort = value; draw(); })));
    return bar;
  }

  function choice(options, chosen, change) {
    const select = make("select", { onchange: () => change(select.value) });
    for (const [value, label] of options) {
      select.append(make("option", { value }, label));
    }
    select.value = chosen;
    return select;
  }

  function closest(steps, step) {
    let best = 0;
    steps.forEach((one, i) => {
      if (Math.abs(one.step - step) < Math.abs(steps[best].step - step)) best = i;
    });
    return best;
  }

  function draw() {
    const run = runs[now.run];
    const step = run.steps[now.step];
    now.group = Math.min(now.group, step.groups.length - 1);
    slider.max = run.steps.length - 1;
    slider.value = now.step;
    output.textContent = step.step;
    document.getElementById("left-out").textContent = run.left_out;
    const top = prompts.scrollTop;
    const names = excerpts(step.groups);
    prompts.replaceChildren(...step.groups.map((g, i) => promptButton(g, i, names[i])));
    prompts.scrollTop = top;
    drawGroup(step.groups[now.group]);
  }

  // The last line of each prompt, without the words they all begin with.
  function excerpts(groups) {
    const lines = groups.map((g) => g.prompt.trim().split("\n").pop().slice(-160));
    let same = lines.length > 1 ? lines[0].lastIndexOf(" ") + 1 : 0;
    const differ = () => lines.some((line) => !line.startsWith(lines[0].slice(0, same)));
    while (same > 0 && (differ() || lines.some((line) => line.length <= same))) {
      same = lines[0].lastIndexOf(" ", same - 2) + 1;
    }
    return same < 12 ? lines : lines.map((line) => `… ${line.slice(same)}`);
  }

  function promptButton(group, index, name) {
    // What stands in for a row says so in a note, and is not the policy's own.
    const own = group.rows.filter((row) => !row.note);
    const rewards = own.map((row) => row.reward).filter((r) => r !== null);
    const mean = rewards.reduce((a, b) => a + b, 0) / rewards.length;
    const dots = group.rows.map((row) => make("i", { class: sign(row.advantage) }));
    return make("button", { "aria-pressed": index === now.group,
      onclick: () => { now.group = index; draw(); } },
    make("div", { class: "line" }, make("span", {}, name),
      make("b", {}, rewards.length ? mean.toFixed(2) : "")),
    make("div", { class: "dots" }, ...dots));
  }

  function sign(advantage) {
    if (advantage === null || Math.abs(advantage) < 1e-6) return "";
    return advantage > 0 ? "plus" : "minus";
  }

  function drawGroup(group) {
    const rows = [...group.rows];
    const key = now.sort;
    if (key !== "sample") rows.sort((a, b) => (b[key] ?? -1e9) - (a[key] ?? -1e9));
    const name = group.prompt_id ? `Prompt ${group.prompt_id}` : "Prompt";
    const reference = make("div", { class: "reference" }, "Reference ",
      make("b", {}, group.reference || "none"));
    if (group.golds) {
      reference.append(make("br"), "Gold documents ", make("b", {}, group.golds.join(" · ")));
    }
    panel.replaceChildren(make("h4", {}, name), make("pre", {}, group.prompt), reference,
      ...legend(rows), ...rows.map((row) => (row.turns ? episode(row) : completion(row))));
  }

  // What the colours of episodes mean, of those that occur.
  function legend(rows) {
    const parts = rows.flatMap((row) => row.turns ?? []).flatMap((turn) => turn.parts);
    if (!parts.length) return [];
    const there = new Set(parts.map(([origin]) => origin));
    const meanings = [["sampled", "written by the policy and trained on"],
      ["expert", "written by an expert and trained on"],
      ["guidance", "an expert's, to start from"],
      ["forced", "put in, or copied from another row: not trained on"]];
    const marks = meanings.filter(([origin]) => there.has(origin));
    marks.push(["observation", "observation: shown, never trained on"]);
    return [make("div", { class: "origins" }, ...marks.map(([origin, meaning]) =>
      make("span", {}, make("i", { class: `by ${origin}` }), meaning)))];
  }

  function completion(row) {
    return make("article", { class: "completion" }, facts(row), make("pre", {}, row.text));
  }

  function facts(row) {
    const box = make("div", { class: "facts" },
      make("b", { class: `advantage ${sign(row.advantage)}` }, signed(row.advantage)),
      " advantage");
    const list = make("dl", {}, make("dt", {}, "reward"), make("dd", {}, shown(row.reward)));
    const weights = row.turns ? runs[now.run].weights : {};
    for (const [name, value] of Object.entries(row.rewards)) {
      const weight = Object.hasOwn(weights, name) ? [make("i", {}, ` × ${weights[name]}`)] : [];
      list.append(make("dt", {}, name.split(":").pop()),
        make("dd", {}, shown(value), ...weight));
    }
    list.append(make("dt", {}, "tokens"), make("dd", {}, String(row.tokens ?? "·")));
    if (row.turns) list.append(make("dt", {}, "sample"), make("dd", {}, String(row.sample ?? "·")));
    box.append(list);
    if (!row.finished) box.append(make("div", { class: "cut" }, "cut by the limit"));
    if (row.origins) box.append(make("div", {}, row.origins));
    const note = row.note || (row.turns && isUnused(row) ? "not in the update" : "");
    if (note) box.append(make("div", { class: "note" }, note));
    return box;
  }

  // Whether nothing of a completion was trained on.
  function isUnused(row) {
    const masked = !row.finished && runs[now.run].mask_truncated;
    return row.advantage === null || row.reward === null || masked;
  }

  // An episode, turn by turn; of a long one only the last turn is unfolded.
  function episode(row) {
    const size = row.turns.reduce((sum, turn) => sum + written(turn).length
      + beginning(turn.observation).length, 0);
    const last = row.turns.length - 1;
    const blocks = row.turns.map((turn, i) => block(turn, i, size < 6000 || i === last));
    const unused = isUnused(row) ? " unused" : "";
    return make("article", { class: `completion${unused}` }, facts(row),
      make("div", { class: "turns" }, ...blocks));
  }

  function block(turn, index, open) {
    const title = make("summary", {}, make("span", { class: "number" }, index + 1));
    if (turn.query) title.append(make("b", { class: "query" }, turn.query));
    else if (!turn.marks.length) title.append(make("span", {}, "last turn"));
    title.append(...turn.marks.map((mark) => make("span", { class: "mark" }, mark)));
    if (turn.query && turn.coverage) {
      title.append(make("span", { class: "found" }, `${turn.coverage} so far`));
    }
    const made = make("details", open ? { open: "" } : {}, title, make("pre", {},
      ...turn.parts.map(([origin, text]) => make("span", { class: `by ${origin}` }, text))));
    if (turn.observation) made.append(observation(turn));
    return made;
  }

  function observation(turn) {
    const names = turn.documents.map(([name, gold]) => make("span",
      gold ? { class: "document gold", title: "a gold document" } : { class: "document" },
      gold ? `★ ${name}` : name));
    const count = `${names.length} document${names.length === 1 ? "" : "s"}`;
    return make("div", { class: "by observation" },
      make("div", { class: "documents" }, names.length ? count : "no document", ...names),
      fold(turn.observation.trim()));
  }

  // A text, and a button for what is not shown of it at first.
  function fold(text) {
    const pre = make("pre", {}, text);
    const short = beginning(text);
    if (short.length >= text.length - 60) return pre;
    pre.textContent = `${short} `;
    pre.append(make("button", { onclick: () => { pre.textContent = text; } },
      `all ${text.length} characters`));
    return pre;
  }

  // The beginning of each line of a text: a document begins a line.
  function beginning(text) {
    const lines = text.split("\n").map((line) => Array.from(line));
    const short = lines.slice(0, 20).map((line) =>
      line.length > 300 ? `${line.slice(0, 300).join("")}…` : line.join(""));
    return short.join("\n") + (lines.length > 20 ? "\n…" : "");
  }

  function written(turn) { return turn.parts.map(([, text]) => text).join(""); }

  function shown(value) { return value === null ? "·" : String(Number(value.toFixed(3))); }

  function signed(value) {
    if (value === null) return "·";
    return (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
  }
})();
