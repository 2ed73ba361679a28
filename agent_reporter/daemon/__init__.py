"""The long-running service: takes reports of every engine on the host, and outlives them all."""
