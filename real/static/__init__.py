"""Schedules with a fixed batch on torch's pipelining runtime, in processes that torchrun starts."""
