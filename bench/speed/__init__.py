"""Behind `perimetry bench`.

`measure` times suites and audits with `stopwatch`, `roofline` has the bounds, `device_use` measures
how busy the device is, `goals` has the aims; `report` measures all of it in order, `tables` prints
it.
"""
