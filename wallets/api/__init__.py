"""The API over HTTP: bytes to shape, shape to command, outcome to answer."""
