"""The open files of a file input: ten thousand may be followed with a hundred descriptors."""

import errno
import logging
import os
import resource
from collections import OrderedDict

from pipeline.inputs._log import Source
from pipeline.inputs._text import Compressed, Plain, open_text

log = logging.getLogger("aiologs.inputs.file")


class Handles:
    """Open files, the least recently used closed when there are too many."""

    def __init__(self) -> None:
        # A quarter of what the process may have: sockets, databases and other inputs need theirs.
        self._limit = max(8, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._open: OrderedDict[Source, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, source: Source) -> Plain | Compressed | None:
        """The file's text; None where it can't be opened now (said once) or is not under its name any more."""
        if source.text:
            self._open.move_to_end(source)
            return source.text
        self._make_room(self._limit - 1)
        try:
            source.text = self._reopen(source)
        except OSError as error:
            if error.errno == errno.EMFILE:
                self._limit = max(8, len(self._open) // 2)
            self.failed(source, error)
            return None
        if source.text:
            self._open[source] = None
        return source.text

    def failed(self, source: Source, error: OSError) -> None:
        """Say once what is wrong, and close the file: it is opened again at the next look."""
        self.close(source)
        if source.complaint != str(error) and error.errno != errno.ENOENT:
            source.complaint = str(error)
            log.error("can't read %s: %s; trying again at each poll", source.path, error.strerror)

    def close(self, source: Source) -> None:
        """Close a file."""
        if source.text:
            source.text.close()
            source.text = None
            del self._open[source]

    def close_all(self) -> None:
        """Close every file."""
        for source in list(self._open):
            self.close(source)

    def _make_room(self, limit: int) -> None:
        # What has no name any more could not be opened again, and archives would have to be inflated again.
        if len(self._open) > limit:
            spare = (s for s in self._open if s.listed and not (s.text and s.text.compressed and s.reading))
            if oldest := next(spare, None):
                self.close(oldest)

    @staticmethod
    def _reopen(source: Source) -> Plain | Compressed | None:
        text = open_text(source.path)
        status = os.fstat(text.descriptor)
        if (status.st_dev, status.st_ino) == source.key:
            return text
        text.close()
        return None
