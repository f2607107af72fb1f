// A column of the page: one version of a model, and what it answers about the picture.

import { classify, ServerError } from "./server.js";

/** Bars at most; of more classes the most probable ones are shown, in the order of the answer. */
const MOST_BARS = 10;

/** Said of a picture that may have several labels, and has none. */
const NOTHING_REACHED = "no label";

/** What a request is aborted with that nobody waits for. */
const SUPERSEDED = new Error("superseded");

export class Column {
  #root;
  #find;
  #model;
  #version;
  #changed;
  /** Versions by the name of their model. */
  #models = new Map();
  /** Gives the picture to ask about next. */
  #wanted = null;
  #flight = null;
  #busy = false;
  #rows = [];

  /**
   * @param {HTMLElement} parent
   * @param {() => void} chosen called when another model or version is chosen.
   * @param {() => void} changed called when there is another answer, or none.
   */
  constructor(parent, chosen, changed) {
    this.#root = document.getElementById("column").content.cloneNode(true).firstElementChild;
    parent.append(this.#root);
    this.#find = (selector) => this.#root.querySelector(selector);
    this.#model = this.#find("[name=model]");
    this.#version = this.#find("[name=version]");
    this.#changed = changed;
    this.#model.addEventListener("change", () => {
      this.#offerVersions("");
      chosen();
    });
    this.#version.addEventListener("change", () => {
      this.#describe();
      chosen();
    });
    /** What a screen reader says of the answer; "" if there is none. */
    this.spoken = "";
    /** Whether the last request found no server. */
    this.unreachable = false;
  }

  /** The version that would answer; undefined before there are models. */
  get described() {
    const versions = this.#models.get(this.#model.value) ?? [];
    return versions.find((each) => each.version === this.#version.value) ?? byDefault(versions);
  }

  get choice() {
    return { model: this.#model.value, version: this.#version.value };
  }

  get waiting() {
    return this.#busy;
  }

  /** Offers models, and keeps what is chosen as far as it is still there; returns whether it is. */
  offer(models) {
    const { model, version } = this.choice;
    this.#models = models;
    fill(this.#model, [...models.keys()].map((name) => [name, name]));
    if (models.has(model)) this.#model.value = model;
    const kept = this.#offerVersions(models.has(model) ? version : "");
    return kept && this.#model.value === model;
  }

  choose({ model, version }) {
    this.#model.value = model;
    this.#offerVersions(version);
  }

  /**
   * Asks about a picture: at once, or after the answer that is on its way.
   *
   * @param {() => Promise<Picture>} source gives the picture when it is to be sent.
   * @param {boolean} fresh whether what is on its way is of no use any more.
   */
  ask(source, fresh) {
    this.#wanted = source;
    if (fresh) this.#flight?.abort(SUPERSEDED);
    if (!this.#busy) this.#go();
  }

  /** Shows that there is nothing to answer, and what to do about it. */
  reset(hint) {
    this.#wanted = null;
    this.#flight?.abort(SUPERSEDED);
    this.#show(null, hint);
    this.spoken = "";
  }

  remove() {
    this.reset("");
    this.#root.remove();
  }

  async #go() {
    this.#busy = true;
    this.#root.setAttribute("aria-busy", "true");
    while (this.#wanted) {
      const source = this.#wanted;
      this.#wanted = null;
      const controller = (this.#flight = new AbortController());
      try {
        const version = this.described;
        const file = await (await source()).fileFor(version.formats);
        controller.signal.throwIfAborted();
        const topK = Math.min(MOST_BARS, version.labels.length);
        const { model, version: number } = this.choice;
        this.#show(await classify(model, number, file, topK, controller), "");
      } catch (error) {
        if (error === SUPERSEDED) continue;
        // What is half drawn is often no digit yet.
        if (this.#wanted && !error.unreachable) continue;
        if (!(error instanceof ServerError)) console.error(error);
        this.#show(null, error.message);
        this.#find(".message").classList.add("error");
        this.unreachable = error.unreachable ?? false;
      }
    }
    this.#busy = false;
    this.#root.setAttribute("aria-busy", "false");
    this.#changed();
  }

  #show(answer, message) {
    this.unreachable = false;
    const found = answer ? (answer.assigned ?? answer.classes.slice(0, 1)) : [];
    const names = found.map(({ label }) => label).join(", ");
    const headline = answer && !found.length ? NOTHING_REACHED : names;
    this.#find(".best").hidden = !answer;
    this.#find(".best strong").textContent = headline;
    this.#find(".best strong").classList.toggle("long", headline.length > 3);
    // Of several labels the bars say it.
    this.#find(".best span").textContent = found.length === 1 ? percent(found[0].probability) : "";
    this.#find(".message").textContent = message;
    this.#find(".message").classList.remove("error");
    this.#find(".by").textContent = answer ? `Answered by ${answer.model}, version ${answer.version}.` : "";
    const said = found.map(({ label, probability }) => `${label}, ${percent(probability)}`).join("; ");
    this.spoken = answer ? said || headline : message;
    this.#rows.forEach((row, at) => {
      const score = answer?.classes.find(({ label }, rank) => (row.follows ? rank === at : label === row.given));
      if (answer && row.follows) row.name.textContent = score?.label ?? "";
      row.item.classList.toggle("first", Boolean(score) && found.some(({ label }) => label === score.label));
      const threshold = score && answer.thresholds[score.label];
      row.mark.hidden = threshold === undefined || threshold === null;
      row.mark.style.left = `${100 * (threshold ?? 0)}%`;
      row.fill.style.transform = `scaleX(${score?.probability ?? 0})`;
      row.value.textContent = score ? percent(score.probability) : "–";
    });
    for (const each of this.#root.querySelectorAll("[data-time]")) {
      each.textContent = answer ? `${answer.times[each.dataset.time].toFixed(1)} ms` : "–";
    }
    this.#showPixels(answer?.pixels ?? null);
    this.#changed();
  }

  /** Draws what the model has seen, grey or RGB. */
  #showPixels(pixels) {
    const canvas = this.#find("figure canvas");
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    canvas.ariaLabel = pixels ? `${pixels.width} × ${pixels.height} pixels` : "Nothing yet";
    if (!pixels) return;
    const { height, width, channels, data } = pixels;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const image = context.createImageData(width, height);
    for (let at = 0; at < height * width; at++) {
      for (let colour = 0; colour < 3; colour++) {
        image.data[4 * at + colour] = data[at * channels + Math.min(colour, channels - 1)];
      }
      image.data[4 * at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  /** Offers the versions of the chosen model; returns whether a version is still there. */
  #offerVersions(version) {
    const versions = this.#models.get(this.#model.value) ?? [];
    const named = ({ version, versionLabels }) =>
      versionLabels.length ? `${version} (${versionLabels.join(", ")})` : version;
    const asked = byDefault(versions);
    const any = asked ? `${asked === versions[0] ? "Newest" : "Default"} (${asked.version})` : "";
    fill(this.#version, [["", any], ...versions.map((each) => [each.version, named(each)])]);
    const there = version === "" || versions.some((each) => each.version === version);
    this.#version.value = there ? version : "";
    this.#describe();
    return there;
  }

  /** Shows what the chosen version is, and a bar for each class that it will answer with. */
  #describe() {
    const version = this.described;
    if (!version) return;
    const { height, width, channels, labels, accuracy, map, several, pictures } = version;
    const what = several ? "labels, any number of them a picture" : "classes";
    const facts = [`${width} × ${height} ${channels === 1 ? "grey" : "RGB"}`, `${labels.length} ${what}`];
    const held = pictures ? `${pictures.toLocaleString("en")} held-out pictures` : "held-out pictures";
    if (several && map !== undefined) facts.push(`mAP ${percent(map)} on ${held}`);
    else if (accuracy !== undefined) facts.push(`${percent(accuracy)} of ${held} right`);
    this.#find(".about").textContent = facts.join(", ");
    const follows = labels.length > MOST_BARS;
    const names = follows ? Array(MOST_BARS).fill("") : labels;
    if (names.join("\n") === this.#rows.map((row) => row.given).join("\n")) return;
    this.#rows = names.map((name) => bar(name, follows));
    this.#find(".bars").replaceChildren(...this.#rows.map((row) => row.item));
    this.#find(".bars").classList.toggle("words", follows || labels.some((label) => label.length > 2));
  }
}

/** The version that answers where none is asked for; undefined if there are no versions. */
function byDefault(versions) {
  return versions.find((each) => each.default) ?? versions[0];
}

/** A bar of a class; `follows`: its name is that of the answer. */
function bar(given, follows) {
  const [item, name, track, fill, mark, value] = ["li", "span", "span", "span", "i", "span"].map((tag) =>
    document.createElement(tag),
  );
  name.className = "name";
  name.textContent = given;
  track.className = "track";
  mark.hidden = true; // Where the threshold is, of a label that has one.
  track.append(fill, mark);
  value.className = "value";
  value.textContent = "–";
  item.append(name, track, value);
  return { item, name, fill, mark, value, given, follows };
}

/** Gives a select the options [value, text], if it does not have them already. */
function fill(select, options) {
  const same = [...select.options].map((option) => `${option.value}\n${option.text}`).join("\n\n");
  if (same === options.map((option) => option.join("\n")).join("\n\n")) return;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}
