// A picture on its way to the server: as it is if the model reads such files, else as a JPEG.

const MAX_BYTES = 15_000_000; // A server reads messages of 16 MiB, unless its operator says otherwise.
const MAX_PIXELS = 40_000_000; // The same, of the pixels of a picture.
const LONGER_SIDE = 2048; // of a picture that is made smaller
const QUALITY = 0.95;

const SIGNATURES = [
  ["image/jpeg", [0xff, 0xd8, 0xff]],
  ["image/png", [0x89, 0x50, 0x4e, 0x47]],
];

export class Picture {
  #file;
  #type;
  #bitmap;
  #jpeg = null;

  /**
   * @param {Blob} file
   * @param {string | null} type that its first bytes have: JPEG, PNG or null.
   * @param {ImageBitmap | null} bitmap null if the browser cannot decode it.
   * @param {string} name for people.
   */
  constructor(file, type, bitmap, name) {
    this.#file = file;
    this.#type = type;
    this.#bitmap = bitmap;
    this.name = name;
  }

  /**
   * Reads a picture.
   *
   * @throws {Error} with a sentence, if it is neither a JPEG nor a PNG, and the browser cannot read it.
   */
  static async read(file, name) {
    const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    const type = SIGNATURES.find(([, bytes]) => bytes.every((byte, at) => head[at] === byte))?.[0] ?? null;
    let bitmap = null;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      if (type === null) {
        throw new Error(`picture: expected a JPEG, a PNG or what else this browser can read, got ${name}.`);
      }
    }
    return new Picture(file, type, bitmap, name);
  }

  get bitmap() {
    return this.#bitmap;
  }

  /** Its name, its size, and what is sent in its place if models of some kinds need that. */
  describe(kinds) {
    const pixels = this.#bitmap ? `, ${this.#bitmap.width} × ${this.#bitmap.height} pixels` : "";
    const reason = kinds.map((kind) => this.#reason(kind)).find((each) => each !== null);
    return `${this.name}${pixels}, ${size(this.#file.size)}.${reason ? ` Sent as a JPEG: ${reason}.` : ""}`;
  }

  /** The file that a model of a kind is sent. */
  async fileFor(kind) {
    if (this.#reason(kind) === null) return new Blob([this.#file], { type: this.#type });
    this.#jpeg ??= jpegOf(this.#bitmap);
    return this.#jpeg;
  }

  /** Why the file cannot be sent as it is, or null. */
  #reason(kind) {
    if (this.#bitmap === null) return null; // The server will say what is wrong with it.
    if (this.#type === null) return "the server reads JPEG and PNG";
    if (kind === "photo" && this.#type !== "image/jpeg") return "models of photographs read JPEG alone";
    if (this.#file.size > MAX_BYTES) return `files of up to ${size(MAX_BYTES)} are sent as they are`;
    if (this.#bitmap.width * this.#bitmap.height > MAX_PIXELS) return "it has more than 40 million pixels";
    return null;
  }
}

/** A picture as a JPEG on white, its longer side at most LONGER_SIDE. */
async function jpegOf(bitmap) {
  const scale = Math.min(1, LONGER_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
