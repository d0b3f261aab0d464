// Runs the SQL statements of stdin, which end with a semicolon at the end of a line, in Flink's own
// mini cluster, and prints the rows of the last one: a line each, columns by tabs.
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

public class Query {
    public static void main(String[] arguments) throws Exception {
        String input = new String(System.in.readAllBytes(), StandardCharsets.UTF_8);
        TableEnvironment tables = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
        tables.getConfig().set("parallelism.default", "1");
        TableResult result = null;
        for (String statement : input.split(";\\s*\\R")) {
            if (!statement.isBlank()) {
                result = tables.executeSql(statement);
            }
        }
        StringBuilder printed = new StringBuilder();
        try (CloseableIterator<Row> rows = result.collect()) {
            while (rows.hasNext()) {
                Row row = rows.next();
                List<String> cells = new ArrayList<>();
                for (int place = 0; place < row.getArity(); place++) {
                    Object value = row.getField(place);
                    // 1E-18 otherwise
                    cells.add(value instanceof BigDecimal number ? number.toPlainString() : String.valueOf(value));
                }
                printed.append(row.getKind().shortString()).append('\t');
                printed.append(String.join("\t", cells)).append('\n');
            }
        }
        System.out.write(printed.toString().getBytes(StandardCharsets.UTF_8));
        System.out.flush();
        System.exit(0);
    }
}
