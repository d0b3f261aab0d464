// Reads bars, VWAP and imbalance with KafkaJS and prints each record as a line of JSON, ten of them here,
// with INFOWAY_BOOTSTRAP and INFOWAY_REGISTRY set (`make run` prints them), and INFOWAY_PREFIX where there is one, in this folder:
//
//     $ npm install
//     $ node consume.mjs 10
import { SchemaRegistry, SchemaType } from '@kafkajs/confluent-schema-registry'
import avro from 'avsc'
import kafkajs from 'kafkajs'
import lz4 from 'lz4js'

const { INFOWAY_BOOTSTRAP, INFOWAY_REGISTRY, INFOWAY_PREFIX = '' } = process.env
const topics = ['infoway.bars.1m', 'infoway.vwap.1m', 'infoway.depth.imbalance'].map(name => INFOWAY_PREFIX + name)

// the pipeline compresses with lz4, which KafkaJS leaves to a codec of one's own
kafkajs.CompressionCodecs[kafkajs.CompressionTypes.LZ4] = () => ({
  compress: async encoder => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async buffer => Buffer.from(lz4.decompress(buffer)),
})

// exact: a number of JavaScript would keep 16 digits of 38
class Decimal extends avro.types.LogicalType {
  constructor(schema, options) {
    super(schema, options)
    this.scale = schema.scale
  }

  _fromValue(bytes) {
    const units = BigInt.asIntN(bytes.length * 8, BigInt(`0x${bytes.toString('hex')}`))
    const digits = (units < 0n ? -units : units).toString().padStart(this.scale + 1, '0')
    return `${units < 0n ? '-' : ''}${digits.slice(0, -this.scale)}.${digits.slice(-this.scale)}`
  }
}

const registry = new SchemaRegistry({ host: INFOWAY_REGISTRY }, { [SchemaType.AVRO]: { logicalTypes: { decimal: Decimal } } })
const kafka = new kafkajs.Kafka({ brokers: INFOWAY_BOOTSTRAP.split(','), logLevel: kafkajs.logLevel.ERROR })
// reads committed records only, as is KafkaJS's default
const consumer = kafka.consumer({ groupId: `${INFOWAY_PREFIX}interop-node` })
let left = Number(process.argv[2])

await consumer.connect()
await consumer.subscribe({ topics, fromBeginning: true })
await consumer.run({
  eachMessage: async ({ topic, message }) => {
    const record = await registry.decode(message.value)
    console.log(JSON.stringify({ topic, key: message.key.toString(), ...record }))
    if (--left === 0) setImmediate(async () => { await consumer.disconnect() })
  },
})
