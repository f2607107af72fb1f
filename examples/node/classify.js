// Asks a Convserve server what digit a picture shows: node classify.js [PICTURE [ADDRESS [MODEL]]]
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [
  picture = path.join(__dirname, "..", "seven.png"),
  address = "127.0.0.1:50051",
  model = "mnist",
] = process.argv.slice(2);

// The folder of the .proto files: all that a client in another language needs.
const protos = process.env.PROTOS || path.join(__dirname, "..", "..", "protos");
const definition = loader.loadSync("convserve_protos/classifier.proto", { includeDirs: [protos] });
const { convserve } = grpc.loadPackageDefinition(definition);

const client = new convserve.v1.Classifier(address, grpc.credentials.createInsecure());
const request = { model, encoded: { images: [fs.readFileSync(picture)] }, topK: 1 };

client.classify(request, { deadline: Date.now() + 10_000 }, (error, response) => {
  client.close();
  if (error) {
    console.error(`${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
    return;
  }
  const { classes, probabilities } = response.results[0].prediction;
  console.log(`${response.labels[classes[0]]} ${(100 * probabilities[0]).toFixed(1)} %`);
});
