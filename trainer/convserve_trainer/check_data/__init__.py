"""`check-data`: what in a folder of pictures would spoil a training, and what looks odd in it.

The folders are read (`tree`), every picture is decoded as the training decodes it (`survey`),
the same picture is looked for in other folders (`copies`, `look_alikes`), and the rules
make findings of it all (`findings`); `report` shows them, `moves` moves what they name.
"""
