// The sample browser. It reads #browser-data and draws with textContent only.
"use strict";
(() => {
  const page = document.documentElement;
  addEventListener("error", (event) => { page.dataset.error = event.message; });
  const measure = () => {
    page.dataset.overflow = page.scrollWidth > page.clientWidth ? "yes" : "no";
    page.dataset.width = innerWidth;
  };
  addEventListener("resize", measure);
  const at = (id) => document.getElementById(id);
  measure();
  const source = at("browser-data");
  if (!source) {
    page.dataset.ready = "1";
    return;
  }

  // systems, metrics: names; items: {p: prompt, a: [{s: system, t: text, v: values, u, k: tokens}]}.
  const { systems, metrics, kl, tokens, rewards, items } = JSON.parse(source.textContent);
  items.forEach((item, index) => {
    item.id = index + 1;
    item.by = new Map(item.a.map((answer) => [answer.s, answer]));
    item.hay = [item.p, ...item.a.map((answer) => answer.t)].join("\n").toLowerCase();
  });
  const make = (tag, name = "", text = "") =>
    Object.assign(document.createElement(tag), { className: name, textContent: text });
  const show = (x, sign) => x === null || x === undefined ? "–"
    : (sign && x > 0 ? "+" : "") + x.toFixed(Math.abs(x) >= 100 ? 1 : 3).replace("-", "−");

  // What is shown, and its form in the address after "#".
  const start = { q: "", sort: "order", dir: "down", metric: 0, a: systems.length - 1, b: 0,
    worse: false, color: "none", sample: 1 };
  let state = { ...start };
  let view = [];
  const choices = (name) => Array.from(at("b-" + name).options, (option) => option.value);
  const read = () => {
    const hash = location.hash.slice(1);
    const link = /^sample-(\d+)$/.exec(hash);
    if (!link && !hash.includes("=")) return false;
    const params = new URLSearchParams(link ? "sample=" + link[1] : hash);
    state = { ...start };
    for (const [key, names] of [["metric", metrics], ["a", systems], ["b", systems]]) {
      const place = names.indexOf(params.get(key));
      if (place >= 0) state[key] = place;
    }
    for (const key of ["sort", "dir", "color"]) {
      if (choices(key).includes(params.get(key))) state[key] = params.get(key);
    }
    state.q = params.get("q") ?? "";
    state.worse = params.get("worse") === "1";
    state.sample = Number(params.get("sample")) || 1;
    return true;
  };
  const write = () => {
    const params = new URLSearchParams();
    const text = { metric: metrics[state.metric], a: systems[state.a], b: systems[state.b], worse: 1 };
    for (const key of Object.keys(start)) {
      if (key !== "sample" && state[key] !== start[key]) params.set(key, text[key] ?? state[key]);
    }
    const short = params.size === 0;
    if (!short) params.set("sample", state.sample);
    history.replaceState(null, "", "#" + (short ? "sample-" + state.sample : params));
  };

  const value = (item, system, metric) => item.by.get(system)?.v[metric] ?? null;
  const difference = (item) => {
    const [x, y] = [value(item, state.a, state.metric), value(item, state.b, state.metric)];
    return x === null || y === null ? null : x - y;
  };
  const keys = {
    order: () => null,
    a: (item) => value(item, state.a, state.metric),
    b: (item) => value(item, state.b, state.metric),
    diff: difference,
    kl: (item) => value(item, state.a, kl),
  };
  const select = () => {
    const wanted = state.q.trim().toLowerCase();
    view = items.filter((item) => item.hay.includes(wanted));
    if (state.worse) view = view.filter((item) => (difference(item) ?? 0) < 0);
    const key = keys[state.sort];
    const sign = state.dir === "up" ? 1 : -1;
    view.sort((one, two) => {
      const [x, y] = [key(one), key(two)];
      const order = x === null || y === null ? (x === null) - (y === null) : sign * (x - y);
      return order || one.id - two.id;
    });
    if (!view.some((item) => item.id === state.sample)) state.sample = view[0]?.id ?? state.sample;
  };

  // Colours of tokens: a class and its range for each level.
  const around = (limits) => {
    const [l, m, h] = limits.map((x) => String(Number(x.toPrecision(2))));
    const [low, middle, high] = limits;
    return [
      ["n3", `≤ −${h}`, (x) => x <= -high], ["n2", `−${h} to −${m}`, (x) => x <= -middle],
      ["n1", `−${m} to −${l}`, (x) => x <= -low], ["z", `−${l} to ${l}`, (x) => x < low],
      ["p1", `${l} to ${m}`, (x) => x < middle], ["p2", `${m} to ${h}`, (x) => x < high],
      ["p3", `≥ ${h}`, () => true],
    ];
  };
  const scales = {
    logp: [1, [
      ["z", "p ≥ 0.9", (x) => x >= Math.log(0.9)], ["s1", "0.5 to 0.9", (x) => x >= Math.log(0.5)],
      ["s2", "0.1 to 0.5", (x) => x >= Math.log(0.1)], ["s3", "0.01 to 0.1", (x) => x >= Math.log(0.01)],
      ["s4", "below 0.01", () => true],
    ]],
    kl: [2, around([0.1, 0.5, 2])],
    reward: [3, around([0.1, 0.3, 0.7].map((x) => x * (rewards || 1)))],
  };
  const describe = (token) => `${JSON.stringify(token[0])}: log-prob ${show(token[1])}, `
    + `KL ${show(token[2], true)}, reward ${show(token[3], true)}`;

  const draw_tokens = (answer) => {
    const text = Object.assign(make("p", "text"), { tabIndex: 0, dir: "auto", role: "group",
      ariaLabel: `Answer of ${systems[answer.s]} by token; left and right arrow: values` });
    const line = make("p", "token", "Tap a token, or use the arrow keys, for its values.");
    line.ariaLive = "polite";
    const [column, levels] = scales[state.color];
    const spans = answer.k.map((token) => {
      const level = token[column] === null ? "z" : levels.find(([, , test]) => test(token[column]))[0];
      const span = make("span", level, token[0].replace(/\n/g, "↵\n"));
      span.title = describe(token);
      text.append(span);
      return span;
    });
    let chosen = -1;
    const choose = (place) => {
      if (!spans[place]) return;
      spans[chosen]?.classList.remove("on");
      chosen = place;
      spans[place].classList.add("on");
      line.textContent = describe(answer.k[place]);
    };
    text.addEventListener("click", (event) => choose(spans.indexOf(event.target)));
    text.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      choose(chosen + step);
    });
    return [text, line];
  };
  const draw_answer = (answer) => {
    const box = make("article", "answer");
    const scores = make("ul", "scores");
    metrics.forEach((name, metric) => {
      if ((answer.v[metric] ?? null) !== null) scores.append(make("li", "", `${name} ${show(answer.v[metric])}`));
    });
    box.append(make("h4", "", systems[answer.s]), scores);
    if (answer.u !== null) box.append(make("p", "bad", `Not scorable: ${answer.u}`));
    const coloured = state.color !== "none" && answer.k.length;
    box.append(...coloured ? draw_tokens(answer) : [Object.assign(make("p", "text", answer.t), { dir: "auto" })]);
    return box;
  };
  const draw = () => {
    select();
    for (const key of ["q", "sort", "dir", "metric", "a", "b", "color"]) at("b-" + key).value = state[key];
    at("b-worse").checked = state.worse;
    const [a, b] = [systems[state.a], systems[state.b]];
    at("b-worse-text").textContent = `only where ${a} is worse than ${b} (lower ${metrics[state.metric] ?? "score"})`;
    at("b-list").replaceChildren(...view.map((item) => {
      const button = Object.assign(make("button"), { type: "button", value: item.id });
      const beside = state.sort === "order" ? "" : show(keys[state.sort](item), state.sort === "diff");
      button.append(make("small", "", String(item.id)), make("span", "", item.p), make("small", "", beside));
      button.addEventListener("click", () => go(item.id));
      const row = make("li");
      row.append(button);
      return row;
    }));
    page.dataset.count = view.length;
    page.dataset.items = items.length;
    page.dataset.order = view.slice(0, 10).map((item) => item.id).join(",");
    draw_sample();
  };
  const draw_sample = () => {
    const place = view.findIndex((item) => item.id === state.sample);
    const item = view[place];
    page.dataset.sample = item ? item.id : "";
    for (const button of at("b-list").querySelectorAll("button")) {
      const here = Number(button.value) === item?.id;
      button.ariaCurrent = here ? "true" : null;
      if (here) at("b-list").scrollTop = button.offsetTop - at("b-list").offsetTop - 60;
    }
    at("b-previous").disabled = place <= 0;
    at("b-next").disabled = place < 0 || place + 1 >= view.length;
    const more = item && systems.length > 1 && state.a !== state.b && difference(item) !== null
      ? `; ${metrics[state.metric]}, ${systems[state.a]} − ${systems[state.b]}: ${show(difference(item), true)}` : "";
    at("b-status").textContent = item
      ? `Sample ${item.id}, ${place + 1} of ${view.length}${more}` : "No sample matches.";
    const prompt = Object.assign(make("p", "prompt", item?.p), { dir: "auto" });
    const answers = make("div", "answers");
    answers.append(...(item?.a ?? []).map(draw_answer));
    at("b-sample").replaceChildren(...(item ? [prompt, answers] : []));
    const levels = scales[state.color]?.[1] ?? [];
    at("b-legend").hidden = levels.length === 0;
    at("b-legend").replaceChildren(make("li", "dim", at("b-color").selectedOptions[0].text + ":"), ...levels.map(([level, range]) => {
      const row = make("li");
      row.append(make("span", level, "token"), range);
      return row;
    }));
    measure();
  };
  const go = (id) => {
    state.sample = id;
    write();
    draw_sample();
  };
  const step = (by) => {
    const next = view[view.findIndex((item) => item.id === state.sample) + by];
    if (next) go(next.id);
  };

  const fill = (id, names) => at(id).append(
    ...names.map((name, place) => Object.assign(make("option", "", name), { value: place })));
  fill("b-metric", metrics);
  fill("b-a", systems);
  fill("b-b", systems);
  for (const part of document.querySelectorAll("[data-needs]")) {
    const has = { scores: metrics.length, pairs: systems.length > 1 && metrics.length, kl: kl !== null, tokens, rewards };
    if (!has[part.dataset.needs]) part.hidden = part.disabled = true;
  }
  for (const key of ["q", "sort", "dir", "metric", "a", "b", "color", "worse"]) {
    at("b-" + key).addEventListener("input", ({ target }) => {
      state[key] = target.type === "checkbox" ? target.checked
        : ["metric", "a", "b"].includes(key) ? Number(target.value) : target.value;
      draw();
      write();
    });
  }
  at("b-previous").addEventListener("click", () => step(-1));
  at("b-next").addEventListener("click", () => step(1));
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input,select,textarea");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j") step(1);
    if (event.key === "k") step(-1);
  });
  const open = () => {
    const found = read();
    draw();
    if (found) at("browser").scrollIntoView();
  };
  addEventListener("hashchange", open);
  at("browser").hidden = false;
  open();
  page.dataset.ready = "1";
})();
