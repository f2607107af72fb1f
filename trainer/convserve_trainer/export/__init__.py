"""From a Keras net to ONNX, in the precision that is asked for, checked against Keras."""
