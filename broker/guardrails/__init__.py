"""Operator-written checks: what they may say, the processes they run in, and which of them judge what.

`dialect`, `guest`, `worker`, `limits` and `frames` run in confined processes and nowhere else (the last two in those of
`broker.outputs` too); `pool` owns the processes of guardrails;
`chain` is what the rest of the broker calls. This file imports nothing: a worker begins by loading it.
"""
