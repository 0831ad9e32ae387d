"""Whether what tools answer fits their own `outputSchema`: counted, for whoever runs the servers, and nothing else.

A schema and a content are written by a server, which may want to harm: they are judged in a confined process (`worker`,
`dialects`; nothing else of the broker reads a schema), now and then (`checks`), and the outcome is a number (`tally`).
No caller waits for it, and nothing that a caller gets depends on it. This file imports nothing: a worker begins by
loading it.
"""
