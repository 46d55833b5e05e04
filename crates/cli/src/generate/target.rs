//! Where generated records go.
use std::io::{BufWriter, ErrorKind, StdoutLock, Write};

use millstream_connectors::{EncodedEpoch, KafkaRecord, Payload, SinkCommitter, SinkContext, connector, create_topic};
use millstream_plan::{Epoch, Era};

use super::Taken;
use crate::args::TargetArgs;
use crate::bench::topic;
use crate::failure::Failure;

/// Records that are sent and acknowledged together.
const RECORDS: usize = 20_000;

/// Takes records one by one.
pub(super) enum Target {
    Lines(BufWriter<StdoutLock<'static>>),
    Topic(Topic),
}

/// A Kafka topic.
pub(super) struct Topic {
    committer: Box<dyn SinkCommitter>,
    partitions: u64,
    sent: u64,
    epoch: Epoch,
    waiting: Vec<KafkaRecord>,
}

impl Target {
    pub(super) fn open(args: &TargetArgs) -> Result<Self, Failure> {
        match (&args.bootstrap_servers, &args.topic) {
            (Some(servers), Some(name)) => {
                if let Some(partitions) = args.create_topic
                    && create_topic(servers, name, partitions)?
                {
                    eprintln!("created topic '{name}' with {partitions} partitions");
                }
                Ok(Self::Topic(Topic::open(servers, name)?))
            }
            _ => Ok(Self::Lines(BufWriter::with_capacity(1 << 16, std::io::stdout().lock()))),
        }
    }

    /// Takes one record.
    pub(super) fn write(&mut self, json: &[u8]) -> Result<Taken, Failure> {
        match self {
            Self::Lines(out) => match out.write_all(json).and_then(|()| out.write_all(b"\n")) {
                Ok(()) => Ok(Taken::GoOn),
                Err(e) => ended(&e),
            },
            Self::Topic(topic) => {
                topic.write(json)?;
                Ok(Taken::GoOn)
            }
        }
    }

    /// Hands over everything that was taken.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Lines(out) => match out.flush() {
                Ok(()) => Ok(()),
                Err(e) => ended(&e).map(|_| ()),
            },
            Self::Topic(topic) => topic.publish(),
        }
    }
}

fn ended(error: &std::io::Error) -> Result<Taken, Failure> {
    match error.kind() {
        ErrorKind::BrokenPipe => Ok(Taken::Enough),
        _ => Err(Failure::job(format!("cannot write to standard output: {error}"))),
    }
}

impl Topic {
    fn open(servers: &str, name: &str) -> Result<Self, Failure> {
        let partitions = topic::ends(servers, name)?.len() as u64;
        let sql = format!(
            "CREATE TABLE records (value STRING) WITH ('connector' = 'datagen');
             CREATE TABLE target (value STRING) WITH ('connector' = 'kafka', 'topic' = {}, 'properties.bootstrap.servers' = {},
               'sink.delivery-guarantee' = 'at-least-once', 'format' = 'raw');
             INSERT INTO target SELECT value FROM records;",
            topic::quoted(name),
            topic::quoted(servers)
        );
        let pipeline = millstream_sql::plan(&sql, &std::collections::BTreeMap::new(), 1)?;
        let spec = pipeline.sinks.into_iter().next().ok_or_else(|| Failure::job("the target has no sink"))?;
        let kafka = connector("kafka").ok_or_else(|| Failure::job("there is no connector 'kafka'"))?;
        let factory = (kafka.sink)(spec)?;
        factory.check()?;
        let mut committer = factory.committer(0)?;
        committer.open(&SinkContext { era: Era::default(), task: 0, restored: Epoch(0) })?;
        Ok(Self { committer, partitions, sent: 0, epoch: Epoch(0), waiting: Vec::with_capacity(RECORDS) })
    }

    fn write(&mut self, json: &[u8]) -> Result<(), Failure> {
        let partition = (self.sent % self.partitions.max(1)) as i32;
        self.waiting.push(KafkaRecord {
            partition: Some(partition),
            value: Some(json.to_vec()),
            ..KafkaRecord::default()
        });
        self.sent += 1;
        if self.waiting.len() >= RECORDS { self.publish() } else { Ok(()) }
    }

    fn publish(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.epoch = self.epoch.next();
        let records = std::mem::replace(&mut self.waiting, Vec::with_capacity(RECORDS));
        let bytes = records.iter().filter_map(|r| r.value.as_ref()).map(|v| v.len() as u64).sum();
        let epoch =
            EncodedEpoch { epoch: self.epoch, rows: records.len() as u64, bytes, payload: Payload::Kafka(records) };
        Ok(self.committer.publish(vec![epoch])?)
    }
}
