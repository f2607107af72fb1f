"""Bytes and connections; knows no service."""
