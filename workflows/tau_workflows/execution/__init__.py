"""Run work in processes: on this machine or a cluster."""
