// A client that is not ours: what Java's own producer and consumer make of topics.
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

public class Client {
    public static void main(String[] words) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", words[1]);
        int count = Integer.parseInt(words[3]);
        if (words[0].equals("produce")) {
            produce(settings, words[2], count);
        } else {
            consume(settings, words[2], count);
        }
    }

    /** Sends records with keys of many lengths; the default partitioner says where they go. */
    static void produce(Properties settings, String topic, int count) {
        String serializer = "org.apache.kafka.common.serialization.StringSerializer";
        settings.put("key.serializer", serializer);
        settings.put("value.serializer", serializer);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            for (int number = 0; number < count; number++) {
                String key = "ä".repeat(number % 3) + "k".repeat(number % 11) + number;
                producer.send(new ProducerRecord<>(topic, key, "{\"cents\":" + number + "}"));
            }
        }
    }

    /** Prints partition, key, value and headers of committed records, a line each. */
    static void consume(Properties settings, String topic, int count) {
        String deserializer = "org.apache.kafka.common.serialization.StringDeserializer";
        settings.put("key.deserializer", deserializer);
        settings.put("value.deserializer", deserializer);
        settings.put("isolation.level", "read_committed");
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings)) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic)
                .forEach(of -> partitions.add(new TopicPartition(topic, of.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            for (int seen = 0; seen < count; ) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                    StringBuilder line = new StringBuilder();
                    line.append(record.partition()).append('|').append(record.key());
                    line.append('|').append(record.value());
                    record.headers().forEach(header -> line.append('|').append(header.key())
                        .append('=').append(new String(header.value(), StandardCharsets.UTF_8)));
                    System.out.println(line);
                    seen++;
                }
            }
        }
    }
}
