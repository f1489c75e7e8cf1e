"""Maps as pictures: `maps` chooses scales, `canvas` draws, `data_uri` and `notebook` embed."""
