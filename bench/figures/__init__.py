"""Maps as pictures: `maps` chooses scales, `canvas` draws, `notebook` embeds."""
