"""The protocol, from the bytes of a request to those of its answer, without HTTP/2."""
