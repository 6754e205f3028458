"""The host's side of the agents: put them on a device, ask them, start their jobs, follow their events."""
