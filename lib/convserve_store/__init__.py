"""Files on object storage, s3:// and the like, by fsspec and the client of each store.

`location` says what a URL is and opens its store, `objects` writes single objects by condition,
`bundles` lists, reads and publishes model bundles.
"""
