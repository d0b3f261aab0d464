"""Records of a raw topic that no broker has sent."""


class Message:
    """A record of the raw topic, as librdkafka shows it."""

    def __init__(self, offset, value, key=b"key", headers=None):
        self._offset, self._value, self._key, self._headers = offset, value, key, headers

    def offset(self):
        return self._offset

    def key(self):
        return self._key

    def value(self):
        return self._value

    def headers(self):
        return self._headers
