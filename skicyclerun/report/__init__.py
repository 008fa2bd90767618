"""The page that shows a person what a run did: facts from the rows, thumbnails, a map, a timeline, and the HTML."""
