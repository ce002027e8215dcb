"""Measuring a device, so that the simulator and the emulator need not guess: `orionbed calibrate`."""
