// The page: one picture, drawn or given, and one or two columns of answers about it.

import { Column } from "./answer.js";
import { Pad } from "./pad.js";
import { Picture } from "./pictures.js";
import { DIGITS } from "./samples.js";
import { listModels, useKey } from "./server.js";

const LOOK_AGAIN_MS = 10000; // for other models, while the page is seen
const TRY_AGAIN_MS = 2000; // when there was no answer
const SETTLED_MS = 700; // without another answer, before one is spoken

const find = (id) => document.getElementById(id);
const columns = [];
let models = new Map();
let given = null; // the picture that was chosen, dropped, pasted or photographed
let wish = "draw"; // what the user has chosen, for models that leave the choice
let sample = 7;
let speaking = 0; // timers
let looking = 0;

const pad = new Pad(find("pad"), find("pen"), drawn, say);

// What is asked about

/** Whether the sheet is what the columns are asked about. */
function drawing() {
  return wish === "draw" && mayDraw();
}

function mayDraw() {
  return columns.length === 0 || columns.some((column) => column.described?.kind === "digits");
}

/** The picture as it is now; null if there is none. */
function source() {
  if (drawing()) {
    if (pad.blank) return null;
    return async () => new Picture(await pad.file(), "PNG", find("pad"), "Drawing");
  }
  return given && (async () => given);
}

/** Asks the columns about the picture; `fresh`: what they are doing is of no use any more. */
function ask(fresh, which = columns) {
  const picture = source();
  const hint = drawing() ? "Draw a digit: the answer comes as you draw." : "Give a picture, and the answer comes.";
  for (const column of which) {
    if (!column.described) continue;
    if (picture) column.ask(picture, fresh);
    else column.reset(hint);
  }
}

function drawn(fresh) {
  find("undo").disabled = find("clear").disabled = pad.blank;
  find("draw").classList.toggle("blank", pad.blank);
  ask(fresh || pad.blank);
}

async function give(file, name) {
  if (!file) return;
  wish = "file";
  arrange();
  try {
    given = await Picture.read(file, name);
  } catch (error) {
    given = null;
    showGiven(error.message);
    ask(true);
    return;
  }
  showGiven("");
  ask(true);
}

// What is seen

/** Shows the sheet or the given picture, and the choice between them if the models leave it. */
function arrange() {
  const draw = drawing();
  find("source").hidden = !mayDraw();
  find("draw").hidden = !draw;
  find("file").hidden = draw;
  for (const radio of find("source").querySelectorAll("input")) {
    radio.checked = (radio.value === "draw") === draw;
  }
  if (given) showGiven("");
}

function showGiven(error) {
  const canvas = find("preview");
  const context = canvas.getContext("2d");
  const bitmap = given?.bitmap;
  const side = Math.max(bitmap?.width ?? 1, bitmap?.height ?? 1);
  const ratio = Math.min(2, devicePixelRatio) * canvas.clientWidth || canvas.width;
  canvas.width = canvas.height = Math.round(ratio);
  if (bitmap) {
    const width = (bitmap.width / side) * canvas.width;
    const height = (bitmap.height / side) * canvas.height;
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
  }
  canvas.ariaLabel = given ? given.name : "No picture yet";
  const formats = columns.flatMap((column) => (column.described ? [column.described.formats] : []));
  find("file-note").textContent = error || given.describe(formats);
  find("file-note").classList.toggle("error", Boolean(error));
  find("file").classList.toggle("blank", !bitmap);
}

function addColumn() {
  const column = new Column(
    find("columns"),
    () => {
      arrange();
      ask(true);
    },
    answered,
  );
  columns.push(column);
  find("columns").classList.toggle("two", columns.length > 1);
  return column;
}

/** Adds a column with another version of the model, or else another model; or takes it away. */
function compare() {
  if (columns.length > 1) {
    columns.pop().remove();
    find("columns").classList.remove("two");
    arrange();
  } else {
    const column = addColumn();
    column.offer(models);
    column.choose(other(columns[0].choice, columns[0].described));
    arrange();
    ask(false, [column]);
  }
  find("compare").ariaPressed = String(columns.length > 1);
}

/** What a column is compared with: another version, or else another model, of its kind if there is one. */
function other({ model }, described) {
  const version = models.get(model).find((each) => each.version !== described.version);
  if (version) return { model, version: version.version };
  const others = [...models.values()].flat().filter((each) => each.name !== model);
  const alike = others.find((each) => each.kind === described.kind) ?? others[0] ?? described;
  return { model: alike.name, version: "" };
}

/** Speaks the answers once they are the last ones. */
function answered() {
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    if (columns.some((column) => column.waiting)) return;
    const parts = columns.filter((column) => column.spoken).map((column) => {
      const { name, version } = column.described;
      return columns.length > 1 ? `${name} version ${version}: ${column.spoken}` : column.spoken;
    });
    say(parts.join(". "));
  }, SETTLED_MS);
}

function say(text) {
  find("spoken").textContent = text;
}

// The models

/** Looks for models, now and again while the page is seen. */
async function look() {
  if (document.hidden) return;
  let found = null;
  clearTimeout(looking);
  try {
    found = await listModels();
    connected("connected", "Connected");
    find("key").hidden = true;
  } catch (error) {
    if (error.needsKey) {
      askForKey(error.message);
      return;
    }
    connected("lost", models.size ? `${error.message} Trying again.` : "No connection");
    if (!models.size) notice("No connection", `${error.message} This page tries again by itself.`);
  }
  if (found) offer(found);
  clearTimeout(looking);
  looking = setTimeout(look, found ? LOOK_AGAIN_MS : TRY_AGAIN_MS);
}

/** Asks the user for a key; what was seen stays, and nothing is tried until there is one. */
function askForKey(why) {
  connected("lost", "No key");
  notice("Key", why);
  find("key").hidden = false;
  find("key").querySelector("input").focus();
}

function offer({ models: found, refused }) {
  models = found;
  showRefused(refused);
  const none = models.size === 0;
  find("columns").hidden = find("compare").disabled = none;
  if (none) {
    notice("No models", "The server has loaded no model that classifies pictures. As soon as there is one in its models folder, it appears here.");
    return;
  }
  find("notice").hidden = true;
  if (!columns.length) {
    addColumn().offer(models);
    const digits = [...models.values()].flat().find((each) => each.kind === "digits");
    if (digits) columns[0].choose({ model: digits.name, version: "" });
    arrange();
    ask(true);
    return;
  }
  const stale = columns.filter((column) => !column.offer(models) || column.unreachable);
  arrange();
  ask(true, stale);
}

function connected(state, text) {
  const line = find("connection");
  line.dataset.state = state;
  if (line.textContent !== text) line.textContent = text;
}

function notice(title, text) {
  const [strong, paragraph] = [document.createElement("strong"), document.createElement("p")];
  strong.textContent = title;
  paragraph.textContent = text;
  if (find("notice").textContent !== title + text) find("notice").replaceChildren(strong, paragraph);
  find("notice").hidden = false;
}

function showRefused(refused) {
  const versions = refused.length === 1 ? "1 version is refused" : `${refused.length} versions are refused`;
  find("refused").hidden = refused.length === 0;
  find("refused").querySelector("summary").textContent = versions;
  find("refused").querySelector("ul").replaceChildren(
    ...refused.map(({ name, version, reason }) => {
      const item = document.createElement("li");
      const title = document.createElement("strong");
      title.textContent = `${name}, version ${version}`;
      item.append(title, ` ${reason}`);
      return item;
    }),
  );
}

// What the user does

find("undo").addEventListener("click", () => pad.undo());
find("clear").addEventListener("click", () => pad.clear());
find("sample").addEventListener("click", () => {
  pad.draw(DIGITS[sample]);
  sample = (sample + 1) % DIGITS.length;
});
find("compare").addEventListener("click", compare);
find("key").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = find("key").querySelector("input");
  useKey(input.value);
  input.value = "";
  look();
});
find("source").addEventListener("change", (event) => {
  wish = event.target.value;
  arrange();
  ask(true);
});
for (const id of ["choose", "photograph"]) {
  find(id).addEventListener("change", ({ target }) => {
    const [file] = target.files;
    give(file, file?.name);
    target.value = ""; // The same file may be chosen again.
  });
}
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) give(file, "Pasted picture");
});
let inside = 0; // elements that a dragged file is over
for (const [name, step] of [["dragenter", 1], ["dragleave", -1]]) {
  document.addEventListener(name, (event) => {
    if (event.dataTransfer.types.includes("Files")) inside += step;
    document.body.classList.toggle("dropping", inside > 0);
  });
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  give(file, file?.name);
});
addEventListener("online", look);
document.addEventListener("visibilitychange", look);

drawn(true);
find("file").classList.add("blank");
look();
