"""Who asks: from the credential of a request to a `Caller`, or to a refusal."""
