"""The leaderboard: `board` ranks rows of records (`row`), `tables` prints it, `page` is HTML."""
