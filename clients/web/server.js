// What the page asks the server, and its answers in the page's own terms.

/** Milliseconds after which a request counts as lost. */
const PATIENCE_MS = 15000;

/** The user's key; kept here alone, so it is gone when the page is closed or loaded again. */
let key = "";

/** Sends a key with every request from now on; none if it is empty. */
export function useKey(text) {
  key = text.trim();
}

/** Why a request has no answer; its message is a sentence for people. */
export class ServerError extends Error {
  /**
   * @param {string} message
   * @param {boolean} unreachable whether the server gave no answer at all.
   * @param {boolean} needsKey whether the server wants a key, or another one.
   */
  constructor(message, unreachable = false, needsKey = false) {
    super(message);
    this.unreachable = unreachable;
    this.needsKey = needsKey;
  }
}

/**
 * The models that are loaded and classify pictures, by name, each with its versions, newest first.
 *
 * @returns {Promise<{models: Map<string, object[]>, refused: {name, version, reason}[]}>}
 */
export async function listModels() {
  const { body } = await fetched("v1/models", { cache: "no-store" });
  const models = new Map();
  for (const one of body.models ?? []) {
    const { input, labels, metrics } = one;
    if (!input || !labels?.length) continue; // It does not classify pictures.
    const version = {
      name: one.name,
      version: String(one.version),
      versionLabels: one.version_labels ?? [],
      default: one.default === true, // It answers where no version is asked for.
      kind: input.kind, // "digits", "photo" or "pixels"
      formats: input.file_formats, // "JPEG", "PNG", "WebP", "GIF"
      height: input.height,
      width: input.width,
      channels: input.channels,
      labels,
      several: one.output === "multi_label", // A picture may have several labels, or none.
      accuracy: metrics?.accuracy,
      map: metrics?.map,
      pictures: metrics?.total,
    };
    models.set(one.name, [...(models.get(one.name) ?? []), version]);
  }
  return { models, refused: body.refused ?? [] };
}

/**
 * Asks a model about one picture.
 *
 * @param {string} model its name.
 * @param {string} version "" for the newest.
 * @param {Blob} picture a file in one of its formats.
 * @param {number} topK of the most probable classes.
 * @param {AbortController} controller aborts the request.
 * @returns {Promise<object>} `classes`, most probable first, each with label and probability;
 *   `assigned`, those that the picture has, where it may have several, else null; `thresholds` by label,
 *   or none; `pixels`
 *   that the model has seen, with height, width, channels and data, uint8 in that order, or null;
 *   `times` in milliseconds.
 * @throws {ServerError} if there is no answer.
 */
export async function classify(model, version, picture, topK, controller) {
  const chosen = encodeURIComponent(model) + (version ? `/versions/${version}` : "");
  const path = `v1/models/${chosen}:classify?pixels=true&top_k=${topK}`;
  const { body, ms } = await fetched(path, {
    method: "POST",
    headers: { "content-type": picture.type },
    body: picture,
  }, controller);
  const [result] = body.results;
  if (result.error) throw new ServerError(sentence(result.error.error));
  const { queue_us, decode_us, compute_us } = body.timings;
  const times = { queue: queue_us / 1000, decode: decode_us / 1000, compute: compute_us / 1000 };
  times.server = times.queue + times.decode + times.compute;
  times.network = Math.max(0, ms - times.server);
  return {
    model: body.model,
    version: String(body.version),
    classes: result.classes,
    assigned: result.assigned ?? null,
    thresholds: body.thresholds ?? {},
    pixels: result.pixels ? { ...result.pixels, data: bytesOf(result.pixels.data) } : null,
    times,
  };
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** An error of the server, "field: expected this, got that", with a full stop. */
function sentence(message) {
  return /[.!?]$/.test(message) ? message : `${message}.`;
}

/**
 * The JSON that a request is answered with, and the milliseconds until all of it was there.
 *
 * @throws {ServerError} if it is an error, no JSON, or does not come in time.
 * @throws whatever the controller was aborted with.
 */
async function fetched(path, options, controller = new AbortController()) {
  const late = setTimeout(
    () => controller.abort(new ServerError(
      `The server has not answered within ${PATIENCE_MS / 1000} seconds.`, true)),
    PATIENCE_MS,
  );
  const began = performance.now();
  const headers = key ? { ...options.headers, authorization: `Bearer ${key}` } : options.headers;
  let response, text;
  try {
    const url = new URL(path, document.baseURI);
    response = await fetch(url, { ...options, headers, signal: controller.signal });
    text = await response.text();
  } catch (error) {
    if (controller.signal.aborted) throw controller.signal.reason;
    throw new ServerError("The server cannot be reached.", true);
  } finally {
    clearTimeout(late);
  }
  const ms = performance.now() - began;
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    throw new ServerError(`The server answered with status ${response.status}, and no JSON.`);
  }
  if (response.status === 401) {
    throw new ServerError(
      key ? "The server does not accept this key." : "The server answers only with a key.", false, true);
  }
  if (!response.ok) {
    throw new ServerError(sentence(body.error ?? `The server answered with status ${response.status}`));
  }
  return { body, ms };
}
