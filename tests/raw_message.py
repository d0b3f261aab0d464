"""Records of a topic that no broker has sent."""


class Message:
    """A record of a topic, as librdkafka shows it."""

    def __init__(
        self, offset, value=None, key=b"key", headers=None, topic="raw", partition=0, error=None
    ):
        self._offset, self._value, self._key, self._headers = offset, value, key, headers
        self._topic, self._partition, self._error = topic, partition, error

    def topic(self):
        return self._topic

    def partition(self):
        return self._partition

    def offset(self):
        return self._offset

    def key(self):
        return self._key

    def value(self):
        return self._value

    def headers(self):
        return self._headers

    def error(self):
        return self._error
