// Publishes the keys on standard input, one a line, with a producer of default settings, and prints the partition of each,
// with INFOWAY_BOOTSTRAP set, in this folder (TOPIC is one of your own: it writes to it):
//
//     $ mvn -q -B dependency:build-classpath -Dmdep.outputFile=classpath
//     $ java -cp "$(cat classpath)" Partition.java TOPIC

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

public class Partition {
    public static void main(String[] arguments) throws Exception {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", System.getenv("INFOWAY_BOOTSTRAP"),
            "key.serializer", StringSerializer.class,
            "value.serializer", StringSerializer.class);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings);
                BufferedReader keys = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (var sent : keys.lines().map(key -> producer.send(new ProducerRecord<>(arguments[0], key, ""))).toList()) {
                System.out.println(sent.get().partition());
            }
        }
    }
}
