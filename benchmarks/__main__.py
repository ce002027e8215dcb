"""Run all benchmarks: `python -m benchmarks`."""

from benchmarks import event_speed, network_speed, schedule_speed, throttle_accuracy, transport_speed

for module in (event_speed, network_speed, schedule_speed, throttle_accuracy, transport_speed):
    print(f"\n== {module.__name__}")
    module.main()
