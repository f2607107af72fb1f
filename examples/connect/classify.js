// Asks a Convserve server what digit a picture shows, with what a browser has: fetch.
//
//     node classify.js [PICTURE [ADDRESS [MODEL [connect | connect-json | grpc-web]]]]
import { readFile } from "node:fs/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { Classifier } from "./gen/convserve_protos/classifier_pb.js";

const [
  picture = new URL("../seven.png", import.meta.url),
  baseUrl = "http://127.0.0.1:8080",
  model = "mnist",
  protocol = "connect",
] = process.argv.slice(2);

const transport =
  protocol === "grpc-web"
    ? createGrpcWebTransport({ baseUrl })
    : createConnectTransport({ baseUrl, useBinaryFormat: protocol !== "connect-json" });
const client = createClient(Classifier, transport);
const images = [new Uint8Array(await readFile(picture))];

try {
  const response = await client.classify(
    { model, input: { case: "encoded", value: { images } }, topK: 1 },
    { timeoutMs: 10_000 },
  );
  const { classes, probabilities } = response.results[0].outcome.value;
  console.log(`${response.labels[classes[0]]} ${(100 * probabilities[0]).toFixed(1)} %`);
} catch (reason) {
  const error = ConnectError.from(reason);
  console.error(`${Code[error.code]}: ${error.rawMessage}`);
  process.exitCode = 1;
}
