"use strict";
const VIEWS = JSON.parse(document.getElementById("views").textContent), SIDE_PX = 224;
const LEGENDS = {
  tokens: "One colour per token. Large areas are one token: little is lost where the picture is even.",
  mass: "Yellow: the token represents many patches. Dark: few. Even areas need few tokens, detail needs many.",
  after: "Features of the merged tokens as colour: their first three principal components as red, green and blue.",
  before: "Features of every patch before merging, with the same components: compare with the merged ones.",
  frame: "The video as the encoder saw it.",
};
const panels = [];
const mode = () => document.querySelector("#modes input:checked").value;
const strength = () => document.getElementById("strength").value / 100;
const edges = () => document.getElementById("edges").checked;
/** A number with its noun. */
const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

function bytes(text) { return Uint8Array.from(atob(text), c => c.charCodeAt(0)); }

/** Everything of one run of one clip that drawing needs. */
function unpack(run) {
  const raw = bytes(run.group), [T, H, W] = run.grid;
  const group = run.wide ? new Uint32Array(raw.buffer) : new Uint16Array(raw.buffer);
  const sizes = new Uint32Array(run.tokens);
  for (const token of group) sizes[token]++;
  const area = H * W, per_frame = Array.from({ length: T }, (_, t) => new Set(group.subarray(t * area, (t + 1) * area)).size);
  return { ...run, group, sizes, per_frame, T, H, W, colours: bytes(run.colours), most: Math.max(...sizes) };
}

/** How many patches of each frame a token represents. */
function life(run, token) {
  const counts = new Array(run.T).fill(0), area = run.H * run.W;
  run.group.forEach((other, i) => { if (other === token) counts[Math.floor(i / area)]++; });
  return counts;
}

function colour(panel, patch, token) {
  const { run, before } = panel, kind = mode();
  if (kind === "mass") {
    const share = Math.log1p(run.sizes[token]) / Math.log1p(run.most);
    return `hsl(${(270 + 145 * share) % 360} 85% ${8 + 57 * share}%)`;
  }
  if (kind === "before" && before) return `rgb(${before[3 * patch]},${before[3 * patch + 1]},${before[3 * patch + 2]})`;
  if (kind === "after" || kind === "before")
    return `rgb(${run.colours[3 * token]},${run.colours[3 * token + 1]},${run.colours[3 * token + 2]})`;
  // Neighbouring numbers get far-apart hues: steps of the golden angle.
  return `hsl(${(token * 137.508) % 360} 85% 55%)`;
}

function draw(panel) {
  const { canvas, run, row, picture, card } = panel, { H, W } = run, pen = canvas.getContext("2d");
  const picked = card.picked, kind = mode(), high = canvas.height / H, wide = canvas.width / W;
  const token = patch => run.group[row * H * W + patch];
  pen.globalAlpha = 1;
  pen.fillStyle = "#777";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (picture) pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const features = kind === "after" || kind === "before" || kind === "mass";
  for (let patch = 0; patch < H * W; patch++) {
    const here = token(patch), is_picked = card.run === run && here === picked;
    let alpha = kind === "frame" ? 0 : features ? Math.min(1, strength() + 0.45) : strength();
    if (card.run === run && picked !== null) alpha = is_picked ? 0.75 : features ? alpha * 0.4 : 0.06;
    if (!alpha) continue;
    pen.globalAlpha = alpha;
    pen.fillStyle = is_picked && !features ? "#ffd84d" : colour(panel, patch, here);
    pen.fillRect((patch % W) * wide, Math.floor(patch / W) * high, wide + 0.5, high + 0.5);
  }
  pen.globalAlpha = 1;
  if (edges() && kind !== "before") outline(pen, run, token, wide, high);
  if (panel.cursor !== null) {
    pen.strokeStyle = "#000";
    pen.lineWidth = 2;
    pen.strokeRect((panel.cursor % W) * wide, Math.floor(panel.cursor / W) * high, wide, high);
  }
}

function outline(pen, run, token, wide, high) {
  const { H, W } = run;
  pen.strokeStyle = "rgb(255 255 255 / 0.7)";
  pen.lineWidth = 1;
  pen.beginPath();
  for (let y = 0; y < H; y++) for (let x = 0; x < W; x++) {
    const here = token(y * W + x);
    if (x + 1 < W && here !== token(y * W + x + 1)) { pen.moveTo((x + 1) * wide, y * high); pen.lineTo((x + 1) * wide, (y + 1) * high); }
    if (y + 1 < H && here !== token((y + 1) * W + x)) { pen.moveTo(x * wide, (y + 1) * high); pen.lineTo((x + 1) * wide, (y + 1) * high); }
  }
  pen.stroke();
}

/** The chart below a run: patches of the picked token in each frame, or else tokens; ticks mark the frames shown. */
function draw_life(card, run) {
  const { canvas } = run.chart, pen = canvas.getContext("2d"), ink = getComputedStyle(document.body);
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
  const step = canvas.width / run.T, floor = canvas.height - 6 * devicePixelRatio;
  pen.fillStyle = ink.getPropertyValue("--line");
  pen.fillRect(0, floor, canvas.width, 1 * devicePixelRatio);
  pen.fillStyle = ink.getPropertyValue("--soft");
  for (const row of run.shown_rows) pen.fillRect((row + 0.5) * step - 1, floor + 2, 2 * devicePixelRatio, 4 * devicePixelRatio);
  const is_picked = card.run === run && card.picked !== null;
  const counts = is_picked ? life(run, card.picked) : run.per_frame, most = Math.max(...counts);
  pen.fillStyle = ink.getPropertyValue(is_picked ? "--accent" : "--line");
  counts.forEach((count, t) => {
    const tall = count / most * (floor - 2);
    pen.fillRect(t * step + 0.5, floor - tall, Math.max(step - 1, 1), tall);
  });
}

function say(card) {
  for (const run of card.runs) {
    const { says } = run.chart;
    if (card.run !== run || card.picked === null) {
      const single = run.sizes.reduce((sum, size) => sum + (size === 1), 0);
      says.textContent = `The chart shows how many of the tokens appear in each frame. The largest token represents ` +
        `${counted(run.most, "patch", "patches")}; ${counted(single, "token represents", "tokens represent")} a single patch.`;
      continue;
    }
    const size = run.sizes[card.picked], counts = life(run, card.picked);
    const frames = counts.filter(count => count).length, first = counts.findIndex(count => count);
    const last = run.T - 1 - [...counts].reverse().findIndex(count => count), at = card.view.row_times_s;
    says.textContent = `Token ${card.picked} represents ${counted(size, "patch", "patches")} ` +
      `(${(100 * size / run.sources).toFixed(2)} % of the clip) in ${frames} of ${counted(run.T, "frame")}, ` +
      `${frames > 1 ? `from ${at[first].toFixed(1)} to` : "at"} ${at[last].toFixed(1)} s. ${card.pinned ? "Tap it again to let go." : ""}`;
  }
}

function show(card) {
  card.panels.forEach(draw);
  card.runs.forEach(run => draw_life(card, run));
  say(card);
}

function pick(card, run, token, pinned) { card.run = run; card.picked = token; card.pinned = pinned; show(card); }

function patch_at(panel, event) {
  const box = panel.canvas.getBoundingClientRect(), { H, W } = panel.run;
  const x = Math.min(W - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * W)));
  const y = Math.min(H - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * H)));
  return y * W + x;
}

function listen(panel) {
  const { canvas, card, run } = panel, token = patch => run.group[panel.row * run.H * run.W + patch];
  canvas.addEventListener("pointermove", event => {
    if (event.pointerType === "mouse" && !card.pinned) pick(card, run, token(patch_at(panel, event)), false);
  });
  canvas.addEventListener("pointerleave", () => { if (!card.pinned) pick(card, null, null, false); });
  canvas.addEventListener("click", event => {
    const here = token(patch_at(panel, event));
    if (card.pinned && card.run === run && card.picked === here) pick(card, null, null, false);
    else pick(card, run, here, true);
  });
  canvas.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -run.W, ArrowDown: run.W }[event.key];
    if (event.key === "Escape") { panel.cursor = null; pick(card, null, null, false); }
    if (step === undefined) return;
    event.preventDefault();
    const next = panel.cursor === null ? 0 : panel.cursor + step;
    if (next >= 0 && next < run.H * run.W) { panel.cursor = next; pick(card, run, token(next), true); }
  });
  canvas.addEventListener("blur", () => { panel.cursor = null; draw(panel); });
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function add_panel(card, run, index, grid) {
  const row = run.shown_rows[index], time = card.view.times_s[index], area = run.H * run.W;
  const figure = element("figure"), canvas = element("canvas");
  canvas.width = SIDE_PX;
  canvas.height = Math.round(SIDE_PX * run.H / run.W);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Frame at ${time} s; arrow keys move over its patches`);
  const count = new Set(run.group.subarray(row * area, (row + 1) * area)).size;
  figure.append(canvas, element("figcaption", "", `${time.toFixed(1)} s, ${counted(count, "token")}`));
  grid.append(figure);
  const before = card.before && card.before.subarray(3 * index * area, 3 * (index + 1) * area);
  const panel = { card, run, row, canvas, before: before && before.length ? before : null, picture: null, cursor: null };
  if (card.view.frames) {
    const picture = new Image();
    picture.onload = () => { panel.picture = picture; draw(panel); };
    picture.src = card.view.frames[index];
  }
  card.panels.push(panel);
  listen(panel);
}

function add_clip(view) {
  const box = element("article", "clip"), runs = view.runs.map(unpack);
  const before = view.source_colours ? bytes(view.source_colours) : null;
  const card = { view, runs, before, panels: [], picked: null, run: null, pinned: false };
  box.append(element("h3", "", `${view.title}, ${view.start} to ${view.end}`));
  if (view.damaged) box.append(element("span", "tag partial", counted(view.damaged, "damaged frame")));
  if (!view.frames) box.append(element("p", "soft", "The video is not at its address any more, so its pictures are missing."));
  for (const run of runs) {
    const name = runs.length > 1 ? `${run.name}: ` : "";
    box.append(element("p", "", `${name}${counted(run.tokens, "token")} for ${counted(run.sources, "patch", "patches")} ` +
      `(${(100 * run.tokens / run.sources).toFixed(1)} %), fidelity ${run.fidelity.toFixed(3)}`));
    const grid = element("div", "frames"), canvas = element("canvas", "life"), says = element("p", "soft says");
    run.chart = { canvas, says };
    canvas.setAttribute("aria-hidden", "true");
    says.setAttribute("aria-live", "polite");
    run.shown_rows.forEach((_, index) => add_panel(card, run, index, grid));
    box.append(grid, canvas, says);
  }
  document.getElementById("clips").append(box);
  panels.push(card);
}

function show_all() {
  document.getElementById("legend").textContent = LEGENDS[mode()];
  panels.forEach(show);
}

VIEWS.forEach(add_clip);
if (!VIEWS.length) document.getElementById("clips").append(element("p", "", "No clip was extracted."));
document.querySelectorAll("#modes input, #strength, #edges").forEach(input => input.addEventListener("input", show_all));
addEventListener("resize", show_all);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show_all);
show_all();
