"""Plain functions from the bytes of a call to the core and back; knows no connection."""
