// The page talks to the widget of ipyniivue as a notebook does (the anywidget front-end module interface): models with
// get, set, on and messages. So NiiVue itself stays in its package, and none of it is copied or changed.
const page = document.documentElement, about = JSON.parse(document.getElementById("about").textContent);
const at = id => document.getElementById(id);
const fail = reason => { page.dataset.state = "failed"; page.dataset.error = String(reason); at("where").textContent = `The viewer could not start: ${reason}`; at("flat").hidden = false; at("view").hidden = true; };
addEventListener("error", event => fail(event.message));
addEventListener("unhandledrejection", event => fail(event.reason));

const bytes = id => Uint8Array.from(atob(at(id).textContent), letter => letter.charCodeAt(0));
const unpacked = data => new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();

class Model {
  static all = {};
  constructor(values) { this.values = values; this.heard = {}; this.widget_manager = { get_model: async id => Model.all[id] }; }
  get(name) { return this.values[name]; }
  set(name, value) { this.values[name] = value; this.call(`change:${name}`); }
  on(name, listener) { (this.heard[name] ||= []).push(listener); }
  off(name, listener) { this.heard[name] = listener ? (this.heard[name] || []).filter(own => own !== listener) : []; }
  call(name, ...values) { for (const listener of this.heard[name] || []) listener(...values); }
  tell(type, ...data) { this.call("msg:custom", { type, data }, []); }
  save_changes() {}
  // What the widget would copy back to Python has no receiver here.
  send_sync_message() { return 0; }
  send(message) { this.listen?.(message); }
}

// How slices lie: all three and a rendering, or one kind. The numbers are NiiVue's slice types.
const views = [["all", 3], ["axial", 0], ["coronal", 1], ["sagittal", 2], ["3D", 4]];
const greys = { scan: "gray", difference: "medgen-difference", heat: "medgen-heat", labels: "gray" };
const state = { scan: 0, place: -1, view: 0, shown: true, point: null };
let top_, overlays = [];

// Which overlay lies over the scan that is looked at; -1 where none does.
const above = () => about.overlays.findIndex(entry => entry.scans.includes(state.scan));

function volume(entry, more) {
  const values = { id: entry.id, name: `${entry.id}.nii.gz`, path: { name: "" }, paired_img_path: { name: "" }, url: "", paired_img_url: "",
    data: new DataView(bytes(entry.id).buffer), colormap: greys[entry.kind], opacity: 1, cal_min: entry.window[0], cal_max: entry.window[1],
    cal_min_neg: null, cal_max_neg: null, colormap_negative: "", frame_4d: 0, colorbar_visible: false, colormap_type: 0, colormap_label: entry.colours || null,
    colormap_invert: false, modulation_image: null, modulate_alpha: 0, ...more };
  return Model.all[entry.id] = new Model(values);
}

const options = () => ({ isRadiologicalConvention: true, sagittalNoseLeft: true, isColorbar: false, multiplanarLayout: 2, multiplanarShowRender: 1,
  sliceType: views[state.view][1], crosshairWidth: 0.3, crosshairWidthUnit: "percent", crosshairGap: 6, crosshairColor: [0.22, 0.91, 1, 0.7], show3Dcrosshair: true, isOrientationTextVisible: true,
  dragMode: 1, isResizeCanvas: true, backColor: [0, 0, 0, 1], viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", dragAndDropEnabled: false, isSliceMM: true, loadingText: "" });

const number = value => Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
const sides = ([x, y, z]) => [[x, "R", "L"], [y, "A", "P"], [z, "S", "I"]].map(([mm, up, down]) => `${Math.abs(mm).toFixed(1)} ${mm >= 0 ? up : down}`).join(", ");

function located(data) {
  state.point = data.mm.slice(0, 3);
  const found = data.values || [], own = above(), scan = found[state.scan]?.value;
  const over = own < 0 ? undefined : found[about.scans.length + own]?.value, entry = about.overlays[own];
  let text = `${sides(state.point)} mm; ${about.scans[state.scan].name} ${scan === undefined ? "outside" : number(scan)}`;
  if (over !== undefined) text += entry.kind === "labels" ? `; ${entry.colours.labels[Math.round(over)] || "no label"}` : over <= about.notScored + 1 ? "; not scored" : `; heat z = ${over.toFixed(2)}`;
  at("where").textContent = text;
  page.dataset.point = state.point.map(mm => mm.toFixed(2)).join(" ");
  page.dataset.heat = over === undefined || over === null ? "" : String(over);
}

function draw() { top_.tell("draw_scene"); }

function jump(index) {
  if (!about.places.length) return;
  state.place = (index + about.places.length) % about.places.length;
  [...at("places").querySelectorAll("button")].forEach((button, own) => button.setAttribute("aria-current", own === state.place));
  go(about.places[state.place].point);
}

// NiiVue's cross lies in shares of the first volume's box, axes ordered right, anterior, superior.
function go(point) {
  const share = about.shares.map(row => row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3]);
  top_.set("scene", { crosshairPos: share });
  top_.tell("move_crosshair_in_vox", 0, 0, 0);
}

function look(index) {
  state.scan = (index + about.scans.length) % about.scans.length;
  about.scans.forEach((entry, own) => Model.all[entry.id].set("opacity", own === state.scan ? 1 : 0));
  mark("scans", state.scan);
  opaque(Number(at("opacity").value));
  const [low, high] = Model.all[about.scans[state.scan].id].window;
  at("low").value = +low.toPrecision(4); at("high").value = +high.toPrecision(4);
  if (state.point) go(state.point);
}

function cut(index) {
  state.view = (index + views.length) % views.length;
  top_.set("opts", options());
  mark("views", state.view);
  draw();
}

function mark(row, chosen) {
  [...at(row).querySelectorAll("button")].forEach((button, own) => button.setAttribute("aria-checked", own === chosen));
}

function windowed() {
  const model = Model.all[about.scans[state.scan].id], low = Number(at("low").value), high = Number(at("high").value);
  if (!(high > low)) return;
  model.window = [low, high];
  model.set("cal_min", low);
  model.set("cal_max", high);
}

function rated(z) {
  const steps = about.threshold.steps, found = steps.filter(([heat]) => heat >= z);
  const count = found.length ? found[found.length - 1][1] : 0;
  return count < 0.005 ? "fewer than 0.01" : count < 10 ? count.toFixed(2) : count.toFixed(0);
}

function threshold(z) {
  const { lowest, highest } = about.threshold, chosen = Math.min(Math.max(z, lowest), highest);
  at("threshold").value = chosen;
  at("z").textContent = chosen.toFixed(2);
  at("means").textContent = about.threshold.steps.length ? `From this heat on ${rated(chosen)} false findings are expected in a healthy scan.` : "";
  // NiiVue shows what is above, the page what is at or above.
  overlays[0].set("cal_min", chosen - 0.005);
  overlays[0].set("cal_max", Math.max(about.overlays[0].window[1], chosen + 1));
}

function opaque(value) {
  at("opacity").value = value;
  overlays.forEach((model, own) => model.set("opacity", state.shown && own === above() ? value : 0));
}

function choice(row, names, act) {
  names.forEach((name, index) => {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = name; button.setAttribute("role", "radio");
    button.addEventListener("click", () => act(index));
    at(row).append(button);
  });
}

function listed() {
  about.places.forEach((place, index) => {
    const item = document.createElement("li"), button = document.createElement("button"), small = document.createElement("small");
    button.type = "button"; button.textContent = place.title; small.textContent = place.text;
    button.append(small);
    button.addEventListener("click", () => jump(index));
    item.append(button);
    at("places").append(item);
  });
}

const moves = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] };

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  const key = event.key;
  if (key === "n") jump(state.place + 1);
  else if (key === "p") jump(state.place - 1);
  else if (key === "f") look(state.scan + 1);
  else if (key === "v") cut(state.view + 1);
  else if (key === "h" && overlays.length) { state.shown = !state.shown; opaque(Number(at("opacity").value)); }
  else if ((key === "+" || key === "-") && about.threshold) threshold(Number(at("threshold").value) + (key === "+" ? 0.1 : -0.1));
  else if (moves[key]) {
    // In radiological convention the right arrow leads to the patient's left.
    const [x, y, z] = moves[key];
    top_.tell("move_crosshair_in_vox", -x, y, z);
  } else return;
  // The drawing has keys of its own, some of them the same.
  event.preventDefault();
  event.stopPropagation();
}

// What a link can ask for: #place=2&z=4.5&scan=1&view=1, counted from 1 but z.
function asked() {
  const wanted = new URLSearchParams(location.hash.slice(1)), read = name => wanted.has(name) ? Number(wanted.get(name)) : NaN;
  if (Number.isInteger(read("scan"))) look(read("scan") - 1);
  if (Number.isInteger(read("view"))) cut(read("view") - 1);
  if (about.threshold && Number.isFinite(read("z"))) threshold(read("z"));
  jump(Number.isInteger(read("place")) ? read("place") - 1 : 0);
}

async function start() {
  listed();
  choice("scans", about.scans.map(entry => entry.name), look);
  choice("views", views.map(([name]) => name), cut);
  if (!document.createElement("canvas").getContext("webgl2")) {
    at("flat").hidden = false; at("view").hidden = true; at("controls").hidden = true;
    at("where").textContent = "";
    page.dataset.state = "flat";
    return;
  }
  const source = await unpacked(bytes("library"));
  const widget = (await import(URL.createObjectURL(new Blob([source], { type: "text/javascript" })))).default;
  about.scans.forEach((entry, own) => { volume(entry, { opacity: own ? 0 : 1 }).window = entry.window; });
  overlays = about.overlays.map((entry, own) => volume(entry, { opacity: own ? 0 : Number(at("opacity").value) }));
  const names = [...about.scans, ...about.overlays].map(entry => entry.id);
  top_ = new Model({ height: 600, opts: options(), volumes: names.map(name => `IPY_MODEL_${name}`), meshes: [], background_masks_overlays: false,
    draw_lut: null, draw_opacity: 0.8, draw_fill_overwrites: true, graph: null, scene: {}, overlay_outline_width: 0, overlay_alpha_shader: 1, this_model_id: null });
  top_.listen = message => { if (message.event === "location_change") located(message.data); };
  await widget.initialize({ model: top_ });
  for (const [name, colours] of Object.entries(about.colours)) top_.tell("add_colormap", `medgen-${name}`, colours);
  await widget.render({ model: top_, el: at("view") });
  at("opaque").hidden = !overlays.length;
  if (about.threshold) {
    const slider = at("threshold");
    [slider.min, slider.max, slider.step] = [about.threshold.lowest, about.threshold.highest, 0.05];
    slider.addEventListener("input", () => threshold(Number(slider.value)));
    threshold(about.threshold.start);
  }
  at("opacity").addEventListener("input", event => opaque(Number(event.target.value)));
  at("low").addEventListener("change", windowed);
  at("high").addEventListener("change", windowed);
  addEventListener("keydown", pressed, true);
  addEventListener("hashchange", asked);
  look(0);
  cut(0);
  asked();
  page.dataset.state = "ready";
}

start().catch(fail);
