"""Operator-written checks: what they may say, the processes they run in, and which of them judge what.

`dialect`, `guest` and `worker` run in the processes of guardrails and nowhere else; `pool` owns those processes;
`chain` is what the rest of the broker calls. This file imports nothing: a worker begins by loading it.
"""
