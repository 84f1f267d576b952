"""The verifier's rules: each takes a Program and says, in a sentence each, what breaks it; none changes anything."""
