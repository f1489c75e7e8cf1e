"""Behind `perimetry bench`: `measure` times, `roofline` bounds, `report` prints."""
