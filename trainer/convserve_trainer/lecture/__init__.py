"""The lecture on convnets, live: each topic is measured on the user's own net.

One file a topic, each with `of(material)`, which returns a `Section`.
"""
