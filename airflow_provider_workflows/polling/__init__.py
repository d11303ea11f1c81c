"""How one triggerer polls for thousands of waits: by server and sign-in a channel, by topic a shared poll."""
