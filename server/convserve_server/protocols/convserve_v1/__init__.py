"""convserve.v1.Classifier: our own protocol (protos/classifier.proto)."""
