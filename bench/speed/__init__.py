"""Behind `perimetry bench`: `measure` times, `floor` bounds, `rivals` compares, `report` prints."""
