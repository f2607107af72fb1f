"""The command `convserve`: pictures found, asked about, counted and shown in a terminal."""
