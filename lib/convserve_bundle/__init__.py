"""The only reader and writer of a model bundle.

A bundle is models/NAME/VERSION/model.onnx: a graph with the input `pixels` and the output
`probabilities`, and a Manifest (protos/convserve_protos/bundle.proto) in the file's metadata.
Beside it lie digests.json, with the digests of all files of the folder, and, if it is signed,
model.sig.
"""
