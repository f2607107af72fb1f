// A picture on its way to the server: as it is if the model reads such files, else as a JPEG.

const MAX_BYTES = 15_000_000; // A server reads messages of 16 MiB, unless its operator says otherwise.
const MAX_PIXELS = 40_000_000; // The same, of the pixels of a picture.
const LONGER_SIDE = 2048; // of a picture that is made smaller
const QUALITY = 0.95;

/** How files of each format begin, as characters of one byte; what differs from file to file is a dot. */
const SIGNATURES = [
  ["JPEG", /^\xff\xd8\xff/],
  ["PNG", /^\x89PNG/],
  ["WebP", /^RIFF....WEBP/s],
  ["GIF", /^GIF8/],
];
const SIGNATURE_BYTES = 12;

export class Picture {
  #file;
  #format;
  #bitmap;
  #jpeg = null;

  /**
   * @param {Blob} file
   * @param {string | null} format that its first bytes have: JPEG, PNG, WebP, GIF or null.
   * @param {ImageBitmap | null} bitmap null if the browser cannot decode it.
   * @param {string} name for people.
   */
  constructor(file, format, bitmap, name) {
    this.#file = file;
    this.#format = format;
    this.#bitmap = bitmap;
    this.name = name;
  }

  /**
   * Reads a picture.
   *
   * @throws {Error} with a sentence, if it is in no format of models, and the browser cannot read it.
   */
  static async read(file, name) {
    const bytes = new Uint8Array(await file.slice(0, SIGNATURE_BYTES).arrayBuffer());
    const head = String.fromCharCode(...bytes);
    const format = SIGNATURES.find(([, begin]) => begin.test(head))?.[0] ?? null;
    let bitmap = null;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      if (format === null) {
        throw new Error(`picture: expected a file that this browser can read, got ${name}.`);
      }
    }
    return new Picture(file, format, bitmap, name);
  }

  get bitmap() {
    return this.#bitmap;
  }

  /** Its name, its size, and what is sent in its place if one of several models needs that. */
  describe(models) {
    const pixels = this.#bitmap ? `, ${this.#bitmap.width} × ${this.#bitmap.height} pixels` : "";
    const reason = models.map((formats) => this.#reason(formats)).find((each) => each !== null);
    return `${this.name}${pixels}, ${size(this.#file.size)}.${reason ? ` Sent as a JPEG: ${reason}.` : ""}`;
  }

  /** The file that a model is sent, by the formats that it reads. */
  async fileFor(formats) {
    if (this.#reason(formats) === null) return new Blob([this.#file], { type: mediaType(this.#format) });
    this.#jpeg ??= jpegOf(this.#bitmap);
    return this.#jpeg;
  }

  /** Why the file cannot be sent as it is, or null. */
  #reason(formats) {
    if (this.#bitmap === null) return null; // The server will say what is wrong with it.
    if (!formats.includes(this.#format)) return `the model reads ${formats.join(", ")}`;
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

function mediaType(format) {
  return format === null ? "application/octet-stream" : `image/${format.toLowerCase()}`;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
