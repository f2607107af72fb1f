"""The contracts of Convserve: protocol buffers and the Python generated from them."""
