"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byNumber = new Map(data.trials.map((trial) => [trial.n, trial]));
  const colours = ["--c0", "--c1", "--c2", "--c3", "--c4", "--c5"];
  const shapes = ["circle", "square", "triangle", "diamond", "cross", "bar"];
  const place = new Map(data.finalists.map((number, index) => [number, index % colours.length]));
  const pinned = new Set();
  const NS = "http://www.w3.org/2000/svg";

  // -- drawing ----------------------------------------------------------------------------------

  function add(parent, tag, attributes = {}, text) {
    const made = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function canvas(id, height, label) {
    const box = document.getElementById(id);
    box.replaceChildren();
    const width = Math.max(280, box.clientWidth);
    const svg = add(box, "svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
    return { svg, width, height };
  }

  function linear(low, high, from, to, apart = 80) {
    const scale = (value) => from + ((value - low) / (high - low || 1)) * (to - from);
    const rough = (high - low) / Math.max(2, Math.abs(to - from) / apart);
    const power = 10 ** Math.floor(Math.log10(rough || 1));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough) || power;
    scale.ticks = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) scale.ticks.push(tick);
    scale.show = (value) => value.toFixed(Math.max(0, Math.min(7, -Math.floor(Math.log10(step) + 1e-9))));
    return scale;
  }

  function logarithmic(low, high, from, to) {
    const scale = (value) => from + (Math.log(value / low) / Math.log(high / low || Math.E)) * (to - from);
    scale.ticks = [];
    const wide = high / low > 30;
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
      for (const digit of wide ? [1, 3] : [1, 2, 3, 5, 7]) {
        const tick = digit * 10 ** power;
        if (tick >= low * 0.999 && tick <= high * 1.001) scale.ticks.push(tick);
      }
    scale.show = (value) => value.toExponential(0).replace("e+0", "");
    return scale;
  }

  function big(value) {
    for (const [size, unit] of [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (Math.abs(value) >= size) return `${+(value / size).toPrecision(3)}${unit}`;
    return `${+value.toPrecision(3)}`;
  }

  function axes(svg, x, y, box, names, show = {}) {
    for (const tick of y.ticks) {
      add(svg, "line", { x1: box.left, x2: box.right, y1: y(tick), y2: y(tick), class: "axis" });
      add(svg, "text", { x: box.left - 7, y: y(tick) + 4, "text-anchor": "end" }, (show.y || y.show)(tick));
    }
    for (const tick of x.ticks)
      add(svg, "text", { x: x(tick), y: box.bottom + 17, "text-anchor": "middle" }, (show.x || x.show)(tick));
    add(svg, "text", { x: box.right, y: box.bottom + 34, "text-anchor": "end" }, names.x);
    add(svg, "text", { x: box.left - 7, y: box.top - 9, "text-anchor": "start" }, names.y);
  }

  function mark(svg, shape, x, y, size, paint, extra = {}) {
    const stroke = { fill: "none", stroke: paint, "stroke-width": 1.8, ...extra };
    const solid = { fill: paint, stroke: paint, "stroke-width": 1.2, ...extra };
    const s = size;
    if (shape === "square") return add(svg, "rect", { x: x - s, y: y - s, width: 2 * s, height: 2 * s, ...solid });
    if (shape === "triangle") return add(svg, "path", { d: `M${x},${y - s * 1.2}L${x + s * 1.1},${y + s}H${x - s * 1.1}Z`, ...solid });
    if (shape === "diamond") return add(svg, "path", { d: `M${x},${y - s * 1.3}L${x + s * 1.3},${y}L${x},${y + s * 1.3}L${x - s * 1.3},${y}Z`, ...solid });
    if (shape === "cross") return add(svg, "path", { d: `M${x - s},${y - s}L${x + s},${y + s}M${x + s},${y - s}L${x - s},${y + s}`, ...stroke });
    if (shape === "bar") return add(svg, "path", { d: `M${x},${y - s * 1.3}V${y + s * 1.3}`, ...stroke, "stroke-width": 3 });
    return add(svg, "circle", { cx: x, cy: y, r: s, ...solid });
  }

  const look = (number) => {
    const at = place.get(number);
    if (at !== undefined) return { paint: `var(${colours[at]})`, shape: shapes[at] };
    return { paint: "var(--ink)", shape: "circle" };
  };
  const line = (points, x, y) => points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("");

  function legend(id, entries) {
    const box = document.getElementById(id);
    box.replaceChildren();
    for (const [text, draw] of entries) {
      const item = document.createElement("span");
      const svg = add(item, "svg", { viewBox: "0 0 26 12", "aria-hidden": "true" });
      draw(svg);
      item.append(text);
      box.append(item);
    }
  }

  // -- hover and pins -----------------------------------------------------------------------------

  const tip = document.getElementById("tip");
  function told(element, number, more = []) {
    const trial = byNumber.get(number);
    element.setAttribute("data-n", number);
    element.style.cursor = "pointer";
    element.addEventListener("pointermove", (event) => {
      tip.replaceChildren();
      const head = document.createElement("b");
      head.textContent = `${number}: ${trial ? trial.label : ""}`;
      tip.append(head);
      const said = trial ? [...more, `${trial.state}${trial.reason ? `: ${trial.reason}` : ""}`, ...trial.params] : more;
      for (const text of said) {
        const row = document.createElement("div");
        row.textContent = text;
        tip.append(row);
      }
      tip.style.display = "block";
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
    });
    element.addEventListener("pointerleave", () => { tip.style.display = "none"; });
    element.addEventListener("click", () => pin(number));
  }

  function pin(number) {
    if (!pinned.delete(number)) pinned.add(number);
    showPins();
  }

  function showPins() {
    const family = (number) => {
      const trial = byNumber.get(number);
      return pinned.has(number) || (trial && trial.of !== null && pinned.has(trial.of));
    };
    for (const element of document.querySelectorAll("[data-n]")) {
      const on = family(Number(element.dataset.n));
      element.classList.toggle("pin", on);
      element.classList.toggle("dim", pinned.size > 0 && !on && element.tagName !== "TR");
    }
  }

  // -- curves -------------------------------------------------------------------------------------

  const AMOUNTS = {
    steps: (trial, index) => trial.curve[0][index],
    tokens: (trial, index) => trial.curve[0][index] * trial.batch,
    FLOPs: (trial, index) => trial.curve[0][index] * trial.batch * trial.fpt,
    seconds: (trial, index) => (trial.sec === null ? null : (trial.curve[0][index] / trial.step) * trial.sec),
  };
  const curveOf = (trial, amount) =>
    trial.curve[0].map((_, index) => [AMOUNTS[amount](trial, index), trial.curve[1][index]]).filter(([a, loss]) => a !== null && loss !== null);

  function at(points, amount) {
    if (!points.length || amount < points[0][0] * (1 - 1e-9) || amount > points[points.length - 1][0] * (1 + 1e-9)) return null;
    const next = points.findIndex(([x]) => x >= amount);
    if (next <= 0) return next === 0 ? points[0][1] : points[points.length - 1][1];
    const [[x0, y0], [x1, y1]] = [points[next - 1], points[next]];
    return y0 + ((amount - x0) / (x1 - x0)) * (y1 - y0);
  }

  function drawForest() {
    const pairs = [["forest-tokens", "equal tokens"], ["forest-compute", "equal compute"]];
    const ends = [data.margin, -data.margin, 0];
    for (const claim of data.claims) ends.push(claim.mean, ...(claim.low === null ? [] : [claim.low, claim.high]), ...claim.dots);
    const low = Math.min(...ends), high = Math.max(...ends), room = (high - low) * 0.06;
    for (const [id, when] of pairs) {
      const claims = data.claims.filter((claim) => claim.at === when);
      const box = document.getElementById(id);
      if (!claims.length) {
        box.textContent = when === "equal compute" ? "Not compared at equal compute: no original with the grown model's FLOPs has ended." : "Not compared yet: no control has ended under the same fresh seeds.";
        continue;
      }
      const narrow = box.clientWidth < 560, step = narrow ? 54 : 40, head = 24;
      const { svg, width, height } = canvas(id, head + 42 + claims.length * step, `Differences of loss to the control at ${when}`);
      const left = narrow ? 10 : Math.min(230, width * 0.36), right = width - 12, bottom = height - 40;
      const x = linear(low - room, high + room, left, right);
      add(svg, "text", { x: narrow ? left : 0, y: 12 }, `at ${when}; left of 0 is better than the control`);
      claims.forEach((_, row) => {
        const [from, to] = narrow ? [head + step * row + 20, step - 20] : [head + step * row, step];
        add(svg, "rect", { x: x(-data.margin), y: from, width: x(data.margin) - x(-data.margin), height: to, fill: "var(--band)" });
        add(svg, "line", { x1: x(0), x2: x(0), y1: from, y2: from + to, class: "zero" });
      });
      for (const tick of x.ticks) add(svg, "text", { x: x(tick), y: bottom + 17, "text-anchor": "middle" }, x.show(tick));
      add(svg, "text", { x: right, y: bottom + 34, "text-anchor": "end" }, `nats of ${data.measure} loss`);
      claims.forEach((claim, row) => {
        const y = head + step * row + (narrow ? 33 : 16);
        const { paint, shape } = look(claim.trial);
        const group = add(svg, "g");
        const shown = claim.low === null ? "no interval" : `${claim.low.toFixed(5)} to ${claim.high.toFixed(5)}`;
        told(group, claim.trial, [`${claim.mean.toFixed(5)} (95 %: ${shown}): ${claim.says}`]);
        add(group, "rect", { x: 0, y: head + step * row, width, height: step, fill: "transparent" });
        const words = `${claim.trial}: ${claim.label}`;
        add(group, "text", { x: narrow ? left : 0, y: narrow ? y - 18 : y + 5, class: "name" }, words);
        if (claim.low !== null) add(group, "line", { x1: x(claim.low), x2: x(claim.high), y1: y, y2: y, stroke: paint, "stroke-width": 2.4 });
        for (const dot of claim.dots) add(group, "circle", { cx: x(dot), cy: y + 9, r: 2.6, fill: paint, opacity: 0.75 });
        if (claim.chose !== null && claim.chose >= low - room && claim.chose <= high + room)
          add(group, "circle", { cx: x(claim.chose), cy: y + 9, r: 2.8, fill: "none", stroke: paint, "stroke-width": 1.2 });
        mark(group, shape, x(claim.mean), y, 5, paint);
      });
    }
  }

  let amount = "steps";
  function drawGap() {
    const controls = data.trials.filter((trial) => trial.of === data.control && trial.role === "replicate");
    const own = byNumber.get(data.control);
    const bySeed = new Map([...(own ? [own] : []), ...controls].map((trial) => [trial.seed, curveOf(trial, amount)]));
    const lines = data.finalists.map((number) => {
      const fresh = data.trials.filter((trial) => trial.of === number && trial.role === "replicate" && bySeed.has(trial.seed));
      const runs = fresh.length ? fresh : [byNumber.get(number)].filter(Boolean);
      const gaps = new Map(); // by step, which all seeds share; amounts differ in their last digits
      for (const run of runs)
        run.curve[0].forEach((step, index) => {
          const x = AMOUNTS[amount](run, index), loss = run.curve[1][index];
          const control = x === null || loss === null ? null : at(bySeed.get(run.seed) || [], x);
          if (control !== null) gaps.set(step, [...(gaps.get(step) || []), [x, loss - control]]);
        });
      const mean = (found, which) => found.reduce((sum, each) => sum + each[which], 0) / found.length;
      const points = [...gaps].filter(([, found]) => found.length === runs.length)
        .sort((a, b) => a[0] - b[0]).map(([, found]) => [mean(found, 0), mean(found, 1)]);
      return { number, points, runs: runs.length };
    }).filter(({ points }) => points.length > 1);
    const box = document.getElementById("gap");
    if (!lines.length) { box.textContent = "No finalist has a curve to compare with the control's yet."; return; }
    const { svg, width, height } = canvas("gap", 300, `Gap to the control by ${amount}`);
    const area = { left: 62, right: width - 14, top: 26, bottom: height - 42 };
    const xs = lines.flatMap(({ points }) => points.map(([x]) => x));
    const ys = lines.flatMap(({ points }) => points.map(([, y]) => y)).sort((a, b) => a - b);
    const last = lines.flatMap(({ points }) => points.slice(Math.floor(points.length / 3)).map(([, y]) => y));
    const cut = [Math.min(...last, -data.margin), Math.max(...last, data.margin)];
    const room = (cut[1] - cut[0]) * 0.15;
    const y = linear(cut[0] - room, cut[1] + room, area.bottom, area.top, 48), x = linear(0, Math.max(...xs), area.left, area.right);
    const left = ys.filter((each) => each < cut[0] - room || each > cut[1] + room).length;
    add(svg, "rect", { x: area.left, width: area.right - area.left, y: y(data.margin), height: y(-data.margin) - y(data.margin), fill: "var(--band)" });
    axes(svg, x, y, area, { x: amount === "steps" ? "optimizer steps" : amount === "seconds" ? "seconds of training" : `training ${amount}`, y: "nats of validation loss above the control" }, { x: big });
    add(svg, "line", { x1: area.left, x2: area.right, y1: y(0), y2: y(0), class: "zero" });
    const clip = add(svg, "clipPath", { id: "gap-area" });
    add(clip, "rect", { x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top });
    for (const { number, points, runs } of lines) {
      const { paint, shape } = look(number);
      const group = add(svg, "g", { "clip-path": "url(#gap-area)" });
      told(group, number, [`mean over ${runs} seed${runs > 1 ? "s" : ""}; at the end ${points[points.length - 1][1].toFixed(5)}`]);
      add(group, "path", { d: line(points, x, y), fill: "none", stroke: paint, "stroke-width": 2 });
      for (const [a, b] of points) mark(group, shape, x(a), y(b), 3, paint);
    }
    document.getElementById("gap-left").textContent = left ? `The axis leaves out ${left} early measurement${left > 1 ? "s" : ""}.` : "";
    legend("gap-legend", lines.map(({ number }) => [`${number}: ${byNumber.get(number).label}`, (small) => mark(small, look(number).shape, 13, 6, 4, look(number).paint)]));
  }

  function drawCurves() {
    const { svg, width, height } = canvas("curves", 340, "Held-out loss of every trial by step");
    const area = { left: 62, right: width - 14, top: 26, bottom: height - 42 };
    const shown = data.trials.filter((trial) => !trial.fresh && trial.curve[0].length > 1);
    if (!shown.length) { document.getElementById("curves").textContent = "No trial has two measurements yet."; return; }
    const ends = shown.map((trial) => trial.curve[1].filter((loss) => loss !== null).at(-1)).sort((a, b) => a - b);
    const top = Math.max(data.base_loss ?? -Infinity, ends[Math.floor(ends.length * 0.75)]);
    const low = ends[0], room = (top - low) * 0.08 || 0.01;
    const y = linear(low - room, top + room * 2, area.bottom, area.top, 48);
    const x = linear(0, Math.max(...shown.flatMap((trial) => trial.curve[0])), area.left, area.right);
    axes(svg, x, y, area, { x: "optimizer steps", y: "held-out loss, nats per token" });
    const clip = add(svg, "clipPath", { id: "curves-area" });
    add(clip, "rect", { x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top });
    if (data.base_loss !== null) {
      add(svg, "line", { x1: area.left, x2: area.right, y1: y(data.base_loss), y2: y(data.base_loss), stroke: "var(--soft)", "stroke-dasharray": "2 4" });
      add(svg, "text", { x: area.right, y: y(data.base_loss) - 5, "text-anchor": "end" }, "the base, untrained");
    }
    const rank = (trial) => (place.has(trial.n) ? 3 : trial.group === "control" || trial.group === "baseline" ? 2 : trial.state === "PRUNED" ? 0 : 1);
    for (const trial of [...shown].sort((a, b) => rank(a) - rank(b))) {
      const kind = rank(trial), paint = kind === 3 ? look(trial.n).paint : kind === 2 ? "var(--ink)" : "var(--faint)";
      const style = { fill: "none", stroke: paint, "stroke-width": kind >= 2 ? 2.2 : 1.1 };
      if (trial.group === "control") style["stroke-dasharray"] = "7 4";
      if (trial.group === "baseline") style["stroke-dasharray"] = "2 3";
      const path = add(svg, "path", { d: line(curveOf(trial, "steps"), x, y), "clip-path": "url(#curves-area)", ...style });
      told(path, trial.n, [trial.loss === null ? "no loss" : `held-out loss ${trial.loss.toFixed(5)}`]);
    }
    const gone = ends.filter((each) => each > top + room * 2).length;
    document.getElementById("curves-left").textContent = gone ? `${gone} trial${gone > 1 ? "s end" : " ends"} above the axis.` : "";
    const stroke = (extra) => (small) => add(small, "path", { d: "M1,6H25", fill: "none", stroke: "var(--ink)", "stroke-width": 2, ...extra });
    legend("curves-legend", [
      ...data.finalists.map((number) => [`${number}: ${byNumber.get(number).label}`, stroke({ stroke: look(number).paint })]),
      ["controls", stroke({ "stroke-dasharray": "7 4" })], ["baseline", stroke({ "stroke-dasharray": "2 3" })],
      ["the rest; stopped early ones are shorter", stroke({ stroke: "var(--faint)", "stroke-width": 1.2 })],
    ]);
  }

  function drawRates() {
    const tried = data.trials.filter((trial) => trial.rate !== null && trial.loss !== null && !trial.fresh);
    const whole = tried.filter((trial) => trial.state === "COMPLETE");
    if (whole.length < 2) { document.getElementById("rates").textContent = "Fewer than two trials ran to their end."; return; }
    const { svg, width, height } = canvas("rates", 320, "Final loss by learning rate");
    const area = { left: 62, right: width - 14, top: 26, bottom: height - 42 };
    const rates = tried.map((trial) => trial.rate), losses = whole.map((trial) => trial.loss).sort((a, b) => a - b);
    const low = losses[0], top = losses[Math.floor(losses.length * 0.8)], room = (top - low) * 0.12 || 0.01;
    const y = linear(low - room, top + room, area.bottom, area.top, 48);
    const x = logarithmic(Math.min(...rates) / 1.1, Math.max(...rates) * 1.1, area.left, area.right);
    axes(svg, x, y, area, { x: "learning rate", y: "held-out loss after the last step, nats per token" });
    const clip = add(svg, "clipPath", { id: "rates-area" });
    add(clip, "rect", { x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top });
    const ks = data.ks, paintOf = (k) => (k === null ? "var(--ink)" : `var(${colours[ks.indexOf(k) % colours.length]})`);
    const shapeOf = (k) => (k === null ? "cross" : shapes[ks.indexOf(k) % 4]);
    for (const valley of data.valleys) {
      const points = valley.points.map((rate, i) => [rate, valley.means[i]]).filter(([rate]) => rate >= Math.min(...rates) / 1.1 && rate <= Math.max(...rates) * 1.1);
      add(svg, "path", { d: line(points, x, y), fill: "none", stroke: paintOf(valley.k), "stroke-width": 1.6, opacity: 0.75, "clip-path": "url(#rates-area)" });
    }
    let outside = 0;
    for (const trial of whole) {
      if (trial.loss > top + room) { outside += 1; continue; }
      const original = trial.group === "control";
      told(mark(svg, shapeOf(original ? null : trial.k), x(trial.rate), y(trial.loss), 4, paintOf(original ? null : trial.k)), trial.n, [`held-out loss ${trial.loss.toFixed(5)}`]);
    }
    document.getElementById("rates-left").textContent = outside ? `${outside} trial${outside > 1 ? "s end" : " ends"} above the axis.` : "";
    legend("rates-legend", [["the original", (small) => mark(small, "cross", 13, 6, 4, "var(--ink)")],
      ...ks.map((k) => [`K=${k}`, (small) => mark(small, shapeOf(k), 13, 6, 4, paintOf(k))])]);
  }

  function drawFront() {
    const box = document.getElementById("front");
    if (!box) return;
    const members = data.front.members;
    if (members.length < 2) { box.textContent = "Fewer than two models ran under fresh seeds."; return; }
    const { svg, width, height } = canvas("front", 300, `Difference of loss to the control by ${data.front.name}`);
    const area = { left: 62, right: width - 14, top: 26, bottom: height - 42 };
    const ends = members.flatMap(({ mean, half }) => [mean - (half || 0), mean + (half || 0)]);
    const low = Math.min(...ends, -data.margin), high = Math.max(...ends, data.margin), room = (high - low) * 0.08;
    const base = data.front.base;
    const costs = members.flatMap(({ at, wide }) => [at - (wide || 0), at + (wide || 0)]).concat(base === null ? [] : [base]);
    const wide = Math.max(...costs) - Math.min(...costs) || 1;
    const y = linear(low - room, high + room, area.bottom, area.top, 48);
    const x = linear(Math.min(...costs) - wide * 0.1, Math.max(...costs) + wide * 0.1, area.left, area.right);
    add(svg, "rect", { x: area.left, width: area.right - area.left, y: y(data.margin), height: y(-data.margin) - y(data.margin), fill: "var(--band)" });
    axes(svg, x, y, area, { x: data.front.name, y: "nats of test loss above the control" }, Math.max(...costs) > 1000 ? { x: big } : {});
    add(svg, "line", { x1: area.left, x2: area.right, y1: y(0), y2: y(0), class: "zero" });
    if (base !== null) {
      add(svg, "line", { x1: x(base), x2: x(base), y1: area.top, y2: area.bottom, stroke: "var(--faint)", "stroke-dasharray": "2 3" });
      add(svg, "text", { x: x(base) + 4, y: area.top + 10, class: "name" }, "base");
    }
    const steps = members.filter(({ line }) => line).map(({ at, mean }) => [at, mean]);
    add(svg, "path", { d: line(steps, x, y), fill: "none", stroke: "var(--faint)", "stroke-width": 1.4, "stroke-dasharray": "4 4" });
    const beside = (member) => { // those of one cost stand side by side
      if (!data.front.exact) return 0;
      const alike = members.filter(({ at }) => Math.abs(x(at) - x(member.at)) < 4);
      return (alike.indexOf(member) - (alike.length - 1) / 2) * 26;
    };
    for (const member of members) {
      const { n, mean, half, dominated, says } = member, at = x(member.at) + beside(member);
      const { paint, shape } = look(n), colour = dominated ? "var(--faint)" : paint;
      const group = add(svg, "g");
      told(group, n, [`${mean.toFixed(5)}${half === null ? "" : ` ±${half.toFixed(5)}`}: ${says}`]);
      if (member.wide !== null) add(group, "line", { x1: x(member.at - member.wide), x2: x(member.at + member.wide), y1: y(mean), y2: y(mean), stroke: colour, "stroke-width": 2 });
      if (half !== null) add(group, "line", { x1: at, x2: at, y1: y(mean - half), y2: y(mean + half), stroke: colour, "stroke-width": 2 });
      mark(group, shape, at, y(mean), 5, colour);
      add(group, "text", { x: at + 8, y: y(mean) - 7, class: "name" }, `${n}`);
    }
  }

  // -- the page -----------------------------------------------------------------------------------

  function drawAll() {
    drawForest(); drawGap(); drawCurves(); drawRates(); drawFront(); showPins();
  }

  for (const button of document.querySelectorAll("#amount button"))
    button.addEventListener("click", () => {
      amount = button.dataset.amount;
      for (const each of document.querySelectorAll("#amount button")) each.setAttribute("aria-pressed", String(each === button));
      drawGap(); showPins();
    });

  for (const table of document.querySelectorAll("table.sorts"))
    table.querySelectorAll("th button").forEach((button, column) => {
      button.addEventListener("click", () => {
        const head = button.parentElement, up = head.getAttribute("aria-sort") !== "ascending";
        for (const each of table.querySelectorAll("th")) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [one, other] = [value(a), value(b)];
          const apart = Number(one) - Number(other);
          return (up ? 1 : -1) * (Number.isNaN(apart) ? one.localeCompare(other) : apart);
        });
        table.tBodies[0].append(...rows);
      });
    });

  for (const row of document.querySelectorAll("tr[data-n]")) {
    row.addEventListener("click", () => pin(Number(row.dataset.n)));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pin(Number(row.dataset.n)); } });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") { pinned.clear(); showPins(); } });

  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 120); });
  addEventListener("beforeprint", drawAll);
  drawAll();
})();
