// The peer of `make bench`: bars of one minute, and on request a VWAP row per trade, by Kafka Streams, exactly once unless
// -Dguarantee=at_least_once says otherwise.
//
//     java -cp CLASSPATH Peer.java processor|dsl ROWS BOOTSTRAP SOURCE BARS VWAPS GROUP COUNT STATE_FOLDER RAW_SCHEMA
//
// It reads raw trades of the contract (Confluent's header, Avro), one thread, until COUNT of them are processed, commits, and prints
// one line of JSON: wall and CPU seconds of the whole run and of its second half, and the sum of the trades' volumes.

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.management.ManagementFactory;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.math.RoundingMode;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

public class Peer {
    static final long MINUTE = 60_000;
    static final int SCALE = 18;

    /** A trade as the job needs it; decoded by Avro's own reader. */
    record Trade(String symbol, long tsEvent, BigDecimal price, BigDecimal volume) {}

    static final class TradeSerde implements Deserializer<Trade>, Serializer<Trade> {
        final GenericDatumReader<GenericRecord> reader;
        BinaryDecoder decoder;
        GenericRecord reused;

        TradeSerde(Schema schema) {
            reader = new GenericDatumReader<>(schema);
        }

        @Override
        public Trade deserialize(String topic, byte[] value) {
            try {
                decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, decoder);
                reused = reader.read(reused, decoder);
                return new Trade(
                    reused.get("symbol").toString(), (Long) reused.get("ts_event"),
                    new BigDecimal(reused.get("price").toString()), new BigDecimal(reused.get("volume").toString()));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }

        @Override
        public byte[] serialize(String topic, Trade trade) {
            throw new UnsupportedOperationException("nothing is repartitioned");
        }

        @Override
        public void configure(Map<String, ?> settings, boolean isKey) {}

        @Override
        public void close() {}
    }

    /** A bar, and the sums since the first trade; exact. */
    static final class Bar {
        long start = Long.MIN_VALUE;
        BigDecimal open, high, low, close;
        BigDecimal volume = BigDecimal.ZERO, turnover = BigDecimal.ZERO;
        long count;
        BigDecimal allVolume = BigDecimal.ZERO, allTurnover = BigDecimal.ZERO;

        void begin(long at, Trade trade) {
            start = at;
            open = high = low = trade.price();
            volume = turnover = BigDecimal.ZERO;
            count = 0;
        }

        void add(Trade trade) {
            if (open == null) {
                begin(trade.tsEvent() - trade.tsEvent() % MINUTE, trade);
            }
            high = high.max(trade.price());
            low = low.min(trade.price());
            close = trade.price();
            BigDecimal paid = trade.price().multiply(trade.volume());
            volume = volume.add(trade.volume());
            turnover = turnover.add(paid);
            count++;
            allVolume = allVolume.add(trade.volume());
            allTurnover = allTurnover.add(paid);
        }
    }

    /** Avro of a bar: start, count, then seven decimals(38,18). Also the form in the state store. */
    static final class BarSerde implements Serde<Bar>, Serializer<Bar>, Deserializer<Bar> {
        final ByteBuffer buffer = ByteBuffer.allocate(512);

        @Override
        public byte[] serialize(String topic, Bar bar) {
            if (bar == null) {
                return null;
            }
            buffer.clear();
            putLong(buffer, bar.start);
            putLong(buffer, bar.count);
            for (BigDecimal each : new BigDecimal[] {
                bar.open, bar.high, bar.low, bar.close, bar.volume, bar.turnover, bar.allVolume, bar.allTurnover}) {
                putDecimal(buffer, each);
            }
            return java.util.Arrays.copyOf(buffer.array(), buffer.position());
        }

        @Override
        public Bar deserialize(String topic, byte[] data) {
            if (data == null) {
                return null;
            }
            ByteBuffer from = ByteBuffer.wrap(data);
            Bar bar = new Bar();
            bar.start = getLong(from);
            bar.count = getLong(from);
            bar.open = getDecimal(from);
            bar.high = getDecimal(from);
            bar.low = getDecimal(from);
            bar.close = getDecimal(from);
            bar.volume = getDecimal(from);
            bar.turnover = getDecimal(from);
            bar.allVolume = getDecimal(from);
            bar.allTurnover = getDecimal(from);
            return bar;
        }

        @Override
        public Serializer<Bar> serializer() {
            return this;
        }

        @Override
        public Deserializer<Bar> deserializer() {
            return this;
        }

        @Override
        public void configure(Map<String, ?> settings, boolean isKey) {}

        @Override
        public void close() {}
    }

    static void putLong(ByteBuffer to, long number) {
        long left = (number << 1) ^ (number >> 63);
        while ((left & ~0x7FL) != 0) {
            to.put((byte) ((left & 0x7F) | 0x80));
            left >>>= 7;
        }
        to.put((byte) left);
    }

    static long getLong(ByteBuffer from) {
        long found = 0;
        for (int shift = 0; ; shift += 7) {
            byte next = from.get();
            found |= (long) (next & 0x7F) << shift;
            if (next >= 0) {
                return (found >>> 1) ^ -(found & 1);
            }
        }
    }

    static void putDecimal(ByteBuffer to, BigDecimal number) {
        byte[] bytes = number.setScale(SCALE, RoundingMode.HALF_EVEN).unscaledValue().toByteArray();
        putLong(to, bytes.length);
        to.put(bytes);
    }

    static BigDecimal getDecimal(ByteBuffer from) {
        byte[] bytes = new byte[(int) getLong(from)];
        from.get(bytes);
        return new BigDecimal(new BigInteger(bytes), SCALE);
    }

    /** Counts what is processed, and notes the times at half and at all of it. */
    static final class Progress {
        final long count;
        final CountDownLatch done = new CountDownLatch(1);
        long seen;
        long[] first, half, end;

        Progress(long count) {
            this.count = count;
        }

        void one() {
            if (seen++ == 0) {
                first = now();
            }
            if (seen == count / 2) {
                half = now();
            } else if (seen == count) {
                done.countDown();
            }
        }

        static long[] now() {
            var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
            return new long[] {System.nanoTime(), system.getProcessCpuTime()};
        }
    }

    static final class Bars implements Processor<String, Trade, String, byte[]> {
        final boolean rows;
        final Progress progress;
        final BarSerde serde = new BarSerde();
        final ByteBuffer row = ByteBuffer.allocate(512);
        ProcessorContext<String, byte[]> context;
        KeyValueStore<String, Bar> store;

        Bars(boolean rows, Progress progress) {
            this.rows = rows;
            this.progress = progress;
        }

        @Override
        public void init(ProcessorContext<String, byte[]> found) {
            context = found;
            store = found.getStateStore("bars");
        }

        @Override
        public void process(Record<String, Trade> message) {
            Trade trade = message.value();
            Bar bar = store.get(message.key());
            if (bar == null) {
                bar = new Bar();
            }
            long start = trade.tsEvent() - trade.tsEvent() % MINUTE;
            if (bar.open != null && start != bar.start) {
                context.forward(new Record<>(message.key(), serde.serialize(null, bar), message.timestamp()), "to-bars");
                bar.begin(start, trade);
            }
            bar.add(trade);
            store.put(message.key(), bar);
            if (rows) {
                row.clear();
                byte[] name = message.key().getBytes(StandardCharsets.UTF_8);
                putLong(row, name.length);
                row.put(name);
                putLong(row, trade.tsEvent());
                putDecimal(row, bar.allTurnover.divide(bar.allVolume, SCALE, RoundingMode.HALF_EVEN));
                putDecimal(row, bar.allVolume);
                putDecimal(row, bar.allTurnover);
                context.forward(
                    new Record<>(message.key(), java.util.Arrays.copyOf(row.array(), row.position()), message.timestamp()),
                    "to-vwaps");
            }
            progress.one();
        }
    }

    public static void main(String[] arguments) throws Exception {
        boolean rows = arguments[1].equals("1");
        String source = arguments[3], bars = arguments[4], vwaps = arguments[5];
        Progress progress = new Progress(Long.parseLong(arguments[7]));
        Schema schema = new Schema.Parser().parse(Files.readString(Path.of(arguments[9])));
        TradeSerde trades = new TradeSerde(schema);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[6]);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[2]);
        settings.put(
            StreamsConfig.PROCESSING_GUARANTEE_CONFIG, System.getProperty("guarantee", StreamsConfig.EXACTLY_ONCE_V2));
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[8]);
        settings.put("auto.offset.reset", "earliest");
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
        KafkaStreams streams = new KafkaStreams(
            arguments[0].equals("dsl") ? dsl(source, bars, trades, progress) : processor(source, bars, vwaps, trades, rows, progress),
            settings);
        streams.start();
        progress.done.await();
        // orderly: commits what is open
        streams.close(Duration.ofSeconds(60));
        progress.end = Progress.now();
        System.out.printf(
            "{\"records\": %d, \"wall\": %.3f, \"cpu\": %.3f, \"warm_wall\": %.3f, \"warm_cpu\": %.3f}%n",
            progress.seen, seconds(progress, 0, false), seconds(progress, 1, false), seconds(progress, 0, true), seconds(progress, 1, true));
    }

    static double seconds(Progress progress, int which, boolean warm) {
        return (progress.end[which] - (warm ? progress.half : which == 1 ? new long[2] : progress.first)[which]) / 1e9;
    }

    static Topology processor(
        String source, String bars, String vwaps, TradeSerde trades, boolean rows, Progress progress) {
        Topology topology = new Topology();
        topology.addSource("trades", Serdes.String().deserializer(), trades, source);
        topology.addProcessor("bar", () -> new Bars(rows, progress), "trades");
        topology.addStateStore(
            Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("bars"), Serdes.String(), new BarSerde()).withCachingEnabled(),
            "bar");
        topology.addSink("to-bars", bars, Serdes.String().serializer(), Serdes.ByteArray().serializer(), "bar");
        topology.addSink("to-vwaps", vwaps, Serdes.String().serializer(), Serdes.ByteArray().serializer(), "bar");
        return topology;
    }

    static Topology dsl(String source, String bars, TradeSerde trades, Progress progress) {
        StreamsBuilder builder = new StreamsBuilder();
        TimestampExtractor eventTime = (ConsumerRecord<Object, Object> message, long before) -> ((Trade) message.value()).tsEvent();
        builder.stream(source, Consumed.with(Serdes.String(), Serdes.serdeFrom(trades, trades)).withTimestampExtractor(eventTime))
            .groupByKey(Grouped.with(Serdes.String(), Serdes.serdeFrom(trades, trades)))
            .windowedBy(TimeWindows.ofSizeWithNoGrace(Duration.ofMinutes(1)))
            .aggregate(
                Bar::new,
                (symbol, trade, bar) -> {
                    bar.add(trade);
                    progress.one();
                    return bar;
                },
                Materialized.<String, Bar>as(Stores.inMemoryWindowStore("bars", Duration.ofMinutes(10), Duration.ofMinutes(1), false))
                    .withKeySerde(Serdes.String()).withValueSerde(new BarSerde()))
            .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
            .toStream((window, bar) -> window.key())
            .mapValues(bar -> new BarSerde().serialize(null, bar))
            .to(bars, Produced.with(Serdes.String(), Serdes.ByteArray()));
        return builder.build();
    }
}
