"""The app's pages: one file a page, one question a page. `frame` is what they share."""
