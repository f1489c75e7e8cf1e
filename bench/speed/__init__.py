"""What `perimetry bench` measures: time, memory and rates of the user's own machine.

`measure` times suites and audits with `stopwatch`, which has the bounds too, `device_use` measures
how busy the device is, `goals` has the aims; `report` measures all of it in order, `tables` prints
it.
"""
