"""From a judged request to the upstream that owns the answer, and back to the one caller it belongs to."""
