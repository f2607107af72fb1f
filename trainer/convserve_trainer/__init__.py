"""Train small Keras convnets and publish them as ONNX bundles."""
