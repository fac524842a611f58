"""The commands of `thresher`; each talks to the service that has the data, or becomes it."""
