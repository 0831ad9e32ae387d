"""Fetching what somebody else has named: keys and metadata of issuers, and whatever URL is not the operator's own.

One way out, so that there is one place to check (I-05, SP-90): nothing else in the broker may open such a URL.
"""
