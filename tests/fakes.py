"""What stands for Kafka if a test needs none: a publisher and a client's queue, both in memory."""

import queue

from confluent_kafka import KafkaError


class Published:
    """Stands for the publisher: keeps what every feed publishes, and lets a test wait for it."""

    def __init__(self):
        self.outputs = []
        self.by_feed = {}
        self.seen = []
        """What a test has waited for or passed over, with its feed."""
        self.behind = False
        self._unseen = queue.Queue()

    def publish(self, outputs, counters):
        self.outputs += outputs
        self.by_feed.setdefault(counters.feed, []).extend(outputs)
        for output in outputs:
            self._unseen.put((counters.feed, output))

    def serve(self):
        pass

    def next(self):
        """Return the next feed and output that no test has seen."""
        self.seen.append(self._unseen.get(timeout=60))
        return self.seen[-1]

    def wait_for(self, wanted):
        """Return the next output that `wanted` accepts."""
        while True:
            _, output = self.next()
            if wanted(output):
                return output

    def wait_for_each(self, *conditions):
        """Wait until feeds and outputs have met each condition, in whatever order."""
        left = list(conditions)
        while left:
            feed, output = self.next()
            left = [condition for condition in left if not condition(feed, output)]

    def unseen(self):
        """Return the outputs that no test has seen."""
        return [output for _, output in list(self._unseen.queue)]

    def all_seen(self):
        """Return every feed and output."""
        while not self._unseen.empty():
            self.seen.append(self._unseen.get())
        return self.seen


class Sent:
    """A message of a producer's queue."""

    def __init__(self, topic, message):
        self.name = topic
        self.message = message

    def topic(self):
        return self.name


class ProducerQueue:
    """Stands for librdkafka's producer: a bounded queue. Its messages are delivered when a test
    says so, or with `delivers` by every poll that waits and every flush."""

    def __init__(self, room=1000, delivers=False):
        self.room = room
        self.delivers = delivers
        self.queue = []
        self.delivered = []
        self.error = None
        self.polls = []

    def produce(self, topic, **message):
        if len(self.queue) >= self.room:
            raise BufferError("queue full")
        self.queue.append(Sent(topic, message))

    def poll(self, timeout):
        self.polls.append(timeout)
        if self.delivers and timeout:
            self.deliver()
        return 0

    def deliver(self, most=None):
        """Deliver messages in their order, or fail them with `error`."""
        taken, self.queue = self.queue[:most], self.queue[len(self.queue[:most]) :]
        for sent in taken:
            self.delivered.append(sent)
            sent.message["on_delivery"](self.error, sent)

    def values(self):
        """Return the values that were delivered."""
        return [sent.message["value"] for sent in self.delivered]

    def flush(self, timeout):
        if self.delivers:
            self.deliver()
        return len(self.queue)

    def purge(self, blocking=True):
        taken, self.queue = self.queue, []
        for sent in taken:
            sent.message["on_delivery"](KafkaError(KafkaError._PURGE_QUEUE), sent)

    def __len__(self):
        return len(self.queue)
