"""inference.GRPCInferenceService: the Open Inference Protocol, version 2."""
