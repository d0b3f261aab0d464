// Reads bars, VWAP and imbalance with Apicurio's Avro serde and prints each record as a line of JSON, ten of them here,
// with INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY set (`make run` prints them), and INFOWAY_PREFIX where there is one, in this folder:
//
//     $ mvn -q -B dependency:build-classpath -Dmdep.outputFile=classpath
//     $ java -cp "$(cat classpath)" Consume.java 10

import com.fasterxml.jackson.databind.ObjectMapper;
import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.apache.avro.LogicalTypes;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Consume {
    public static void main(String[] arguments) throws Exception {
        String prefix = System.getenv().getOrDefault("INFOWAY_PREFIX", "");
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", System.getenv("INFOWAY_BOOTSTRAP"),
            "group.id", prefix + "interop-java",
            "auto.offset.reset", "earliest",
            "isolation.level", "read_committed",
            "key.deserializer", StringDeserializer.class,
            "value.deserializer", AvroKafkaDeserializer.class,
            // Apicurio's own API beside the one that speaks as Confluent's; ids of 4 bytes, which are its content ids
            "apicurio.registry.url", System.getenv("INFOWAY_REGISTRY").replace("/apis/ccompat/v7", "/apis/registry/v3"),
            "apicurio.registry.id-handler", "io.apicurio.registry.serde.Default4ByteIdHandler",
            "apicurio.registry.use-id", "contentId");
        List<String> topics = Stream.of("infoway.bars.1m", "infoway.vwap.1m", "infoway.depth.imbalance").map(prefix::concat).toList();
        ObjectMapper json = new ObjectMapper();
        int left = Integer.parseInt(arguments[0]);
        try (KafkaConsumer<String, GenericRecord> consumer = new KafkaConsumer<>(settings)) {
            consumer.subscribe(topics);
            while (left > 0) {
                for (ConsumerRecord<String, GenericRecord> message : consumer.poll(Duration.ofSeconds(1))) {
                    Map<String, Object> line = new LinkedHashMap<>();
                    line.put("topic", message.topic());
                    line.put("key", message.key());
                    for (Schema.Field field : message.value().getSchema().getFields()) {
                        line.put(field.name(), plain(message.value().get(field.pos()), field.schema()));
                    }
                    System.out.println(json.writeValueAsString(line));
                    left--;
                }
            }
        }
    }

    /** Decimals as text, exact; times stay integers of the schema's unit. */
    static Object plain(Object value, Schema schema) {
        if (value instanceof ByteBuffer bytes) {
            Schema inner = schema.isUnion() ? schema.getTypes().get(1) : schema;
            byte[] units = new byte[bytes.remaining()];
            bytes.duplicate().get(units);
            return new BigDecimal(new BigInteger(units), ((LogicalTypes.Decimal) inner.getLogicalType()).getScale()).toPlainString();
        }
        return value instanceof CharSequence ? value.toString() : value;
    }
}
