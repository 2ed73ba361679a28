"""The way to the control plane: one HTTP session, and where its tokens come from."""
