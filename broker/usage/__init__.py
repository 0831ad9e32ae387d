"""What is known of use: who did what, who was shown what, and how the broker is doing."""
