// Reads bars, VWAP and imbalance with franz-go and prints each record as a line of JSON, ten of them here,
// with INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY set (`make run` prints them), and INFOWAY_PREFIX where there is one, in this folder:
//
//	$ go run . 10
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math/big"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
)

func main() {
	left, err := strconv.Atoi(os.Args[1])
	check(err)
	prefix := os.Getenv("INFOWAY_PREFIX")
	registry, err := sr.NewClient(sr.URLs(os.Getenv("INFOWAY_REGISTRY")))
	check(err)
	consumer, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("INFOWAY_BOOTSTRAP"), ",")...),
		kgo.ConsumeTopics(prefix+"infoway.bars.1m", prefix+"infoway.vwap.1m", prefix+"infoway.depth.imbalance"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// what a worker that died had not committed is not for others
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	check(err)
	defer consumer.Close()

	schemas := map[int]avro.Schema{}
	for left > 0 {
		fetches := consumer.PollFetches(context.Background())
		check(fetches.Err())
		fetches.EachRecord(func(message *kgo.Record) {
			if left--; left < 0 {
				return
			}
			id, body, err := new(sr.ConfluentHeader).DecodeID(message.Value)
			check(err)
			if schemas[id] == nil {
				found, err := registry.SchemaByID(context.Background(), id)
				check(err)
				schemas[id] = avro.MustParse(found.Schema)
			}
			var record map[string]any
			check(avro.Unmarshal(schemas[id], body, &record))
			for _, field := range schemas[id].(*avro.RecordSchema).Fields() {
				record[field.Name()] = plain(record[field.Name()], field.Type())
			}
			record["topic"], record["key"] = message.Topic, string(message.Key)
			line, err := json.Marshal(record)
			check(err)
			fmt.Println(string(line))
		})
	}
}

// plain returns decimals as text, exact, and times as integers of the schema's unit.
func plain(value any, schema avro.Schema) any {
	if union, ok := schema.(*avro.UnionSchema); ok {
		schema = union.Types()[1]
	}
	switch value := value.(type) {
	case *big.Rat:
		scale := schema.(*avro.PrimitiveSchema).Logical().(*avro.DecimalLogicalSchema).Scale()
		return value.FloatString(scale)
	case time.Time:
		switch schema.(*avro.PrimitiveSchema).Logical().Type() {
		case avro.Date:
			return value.Unix() / 86400
		case avro.TimestampMillis:
			return value.UnixMilli()
		}
		return value.UnixMicro()
	}
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
