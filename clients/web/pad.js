// A sheet to draw on with mouse, finger, pen or keys. Black on white, whatever the page looks like:
// the canvas holds what is sent.

const SIDE = 400;
const WIDTH = 30; // of a stroke, canvas pixels
const STEP = 20; // of the pen by keyboard, canvas pixels
const SMALL_STEP = 5;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pad {
  #canvas;
  #context;
  #pen;
  #changed;
  #say;
  /** Strokes, each a list of points: [x, y, width] in canvas pixels. */
  #strokes = [];
  #pointer = null;
  #held = new Set();
  #at = [SIDE / 2, SIDE / 4];
  #down = false;

  /**
   * @param {HTMLCanvasElement} canvas square.
   * @param {HTMLElement} pen shows where the pen of the keyboard is.
   * @param {(fresh: boolean) => void} changed called with whether it is another drawing altogether.
   * @param {(text: string) => void} say for those who do not see the pen.
   */
  constructor(canvas, pen, changed, say) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    this.#pen = pen;
    this.#changed = changed;
    this.#say = say;
    this.#paint();
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.#end(event));
    }
    canvas.addEventListener("keydown", (event) => this.#press(event));
    canvas.addEventListener("keyup", (event) => this.#held.delete(event.key));
    canvas.addEventListener("focus", () => this.#showPen(canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => {
      this.#held.clear();
      this.#lift();
      this.#showPen(false);
    });
  }

  /** Whether nothing is drawn. */
  get blank() {
    return this.#strokes.length === 0;
  }

  /** The sheet as a PNG file. */
  async file() {
    return new Promise((resolve) => this.#canvas.toBlob(resolve, "image/png"));
  }

  /** Draws strokes in place of what is there: lists of points [x, y], 0 to 1. */
  draw(strokes) {
    this.#strokes = strokes.map((points) => points.map(([x, y]) => [x * SIDE, y * SIDE, WIDTH]));
    this.#paint();
    this.#changed(true);
  }

  undo() {
    if (this.blank) return;
    this.#strokes.pop();
    this.#lift();
    this.#paint();
    this.#changed(true);
  }

  clear() {
    if (this.blank) return;
    this.#strokes = [];
    this.#lift();
    this.#paint();
    this.#changed(true);
  }

  #begin(event) {
    if (event.button !== 0 || this.#pointer !== null) return;
    this.#pointer = event.pointerId;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#lift();
    this.#showPen(false);
    this.#strokes.push([]);
    this.#add(this.#point(event));
    this.#changed(false);
  }

  #move(event) {
    if (event.pointerId !== this.#pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.#add(this.#point(each));
    this.#changed(false);
  }

  #end(event) {
    if (event.pointerId !== this.#pointer) return;
    this.#pointer = null;
    this.#changed(false);
  }

  /** Where a pointer is, and how wide it draws: a pen by its pressure, anything else always alike. */
  #point(event) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    const pressed = event.pointerType === "pen" && event.pressure > 0 ? event.pressure : 0.5;
    return [
      (event.clientX - left) * (SIDE / width),
      (event.clientY - top) * (SIDE / height),
      WIDTH * (0.6 + 0.8 * pressed),
    ];
  }

  /** Makes the last stroke longer. */
  #add(point) {
    const stroke = this.#strokes.at(-1);
    stroke.push(point);
    this.#line(stroke.at(-2) ?? point, point);
  }

  #line([fromX, fromY], [x, y, width]) {
    const context = this.#context;
    context.lineWidth = width;
    context.beginPath();
    if (fromX === x && fromY === y) {
      context.arc(x, y, width / 2, 0, 2 * Math.PI);
      context.fill();
      return;
    }
    context.moveTo(fromX, fromY);
    context.lineTo(x, y);
    context.stroke();
  }

  #paint() {
    const context = this.#context;
    context.fillStyle = "#fff";
    context.fillRect(0, 0, SIDE, SIDE);
    context.fillStyle = context.strokeStyle = "#000";
    context.lineCap = "round";
    for (const stroke of this.#strokes) {
      stroke.forEach((point, at) => this.#line(stroke[Math.max(0, at - 1)], point));
    }
  }

  #press(event) {
    const { key } = event;
    if (key === "Backspace" || (key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey))) {
      this.undo();
    } else if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    } else if (key in ARROWS) {
      this.#held.add(key);
      this.#step(event.shiftKey ? SMALL_STEP : STEP);
    } else if (key === "Delete") {
      this.clear();
    } else if (key === " " || key === "Enter") {
      if (!event.repeat) this.#toggle();
    } else if (key === "Escape") {
      this.#lift();
    } else {
      return;
    }
    event.preventDefault();
    this.#showPen(true);
  }

  /** Moves the pen by the arrow keys that are held. */
  #step(length) {
    const last = this.#at;
    this.#at = [0, 1].map((axis) => {
      const way = [...this.#held].reduce((sum, key) => sum + ARROWS[key][axis], 0);
      return Math.min(SIDE, Math.max(0, last[axis] + way * length));
    });
    if (!this.#down || (this.#at[0] === last[0] && this.#at[1] === last[1])) return;
    this.#add([...this.#at, WIDTH]);
    this.#changed(false);
  }

  #toggle() {
    if (this.#down) {
      this.#lift();
      return;
    }
    this.#down = true;
    this.#say("Pen down");
    this.#strokes.push([]);
    this.#add([...this.#at, WIDTH]);
    this.#changed(false);
  }

  #lift() {
    if (!this.#down) return;
    this.#down = false;
    this.#say("Pen up");
    this.#showPen(!this.#pen.hidden);
  }

  #showPen(visible) {
    this.#pen.hidden = !visible;
    this.#pen.classList.toggle("down", this.#down);
    this.#pen.style.left = `${(100 * this.#at[0]) / SIDE}%`;
    this.#pen.style.top = `${(100 * this.#at[1]) / SIDE}%`;
  }
}
