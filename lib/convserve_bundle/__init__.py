"""The only reader and writer of a model bundle.

A bundle is models/NAME/VERSION/model.onnx: a graph with the input `pixels` and the output
`probabilities`, and a Manifest (protos/convserve_protos/bundle.proto) in the file's metadata.
"""
