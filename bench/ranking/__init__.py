"""The leaderboard: `board` ranks records, `tables` prints the board, `page` makes the HTML page."""
