"""Behind `perimetry bench`.

`measure` times suites and audits, `roofline` has the bounds, `device_use` says how busy the device
is, `goals` what was aimed at; `report` measures all of it in order, `tables` prints it.
"""
