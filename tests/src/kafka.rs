//! A real Kafka broker: its life, its topics, and what is in them.

mod read;
mod write;

use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::MetadataPartition;
use rdkafka::types::RDKafkaErrorCode;

use crate::server::Server;
use crate::wait::{block_on, wait_for};

pub use read::{Isolation, Received};
pub use write::{OpenTransaction, Record};

const TIMEOUT: Duration = Duration::from_secs(120);

/// A broker: one of its own, which the test may stop and freeze, or one that all tests share.
pub struct Broker {
    server: Option<Server>,
    bootstrap: String,
}

impl Broker {
    /// The broker for tests that leave it alone.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("MILLSTREAM_TEST_KAFKA") {
            Ok(bootstrap) => Self { server: None, bootstrap },
            Err(_) => Self::start(),
        })
    }

    /// A broker of the test's own, empty, gone when dropped.
    pub fn start() -> Self {
        let server = Server::start("kafka.sh", "KAFKA", 2);
        let bootstrap = format!("127.0.0.1:{}", server.port());
        Self { server: Some(server), bootstrap }
    }

    /// `host:port`, for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Ends the broker in order; its data stay.
    pub fn stop(&self) {
        self.own().run("stop", &[]);
    }

    /// SIGKILL; its data stay.
    pub fn kill(&self) {
        self.own().run("kill", &[]);
    }

    /// Starts a stopped or killed broker again, on the same port and data.
    pub fn start_again(&self) {
        self.own().run("start", &[]);
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.own().signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.own().signal(libc::SIGCONT);
    }

    fn own(&self) -> &Server {
        self.server.as_ref().expect("a test that stops or freezes a broker starts its own with Broker::start")
    }

    /// Makes a topic, with configurations such as `("max.message.bytes", "25000000")`, and waits until it has leaders.
    pub fn create_topic(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        new.config = config.to_vec();
        let results = block_on(self.admin().create_topics([&new], &admin_options()));
        for result in results.unwrap_or_else(|e| panic!("cannot create the topic {topic}: {e}")) {
            result.unwrap_or_else(|(_, code)| panic!("cannot create the topic {topic}: {code}"));
        }
        wait_for(&format!("leaders of {topic}"), TIMEOUT, || (self.led_partitions(topic) == partitions).then_some(()));
    }

    /// Raises the number of partitions to `partitions`.
    pub fn add_partitions(&self, topic: &str, partitions: i32) {
        let new = NewPartitions::new(topic, usize::try_from(partitions).expect("a count"));
        let results = block_on(self.admin().create_partitions([&new], &admin_options()));
        for result in results.unwrap_or_else(|e| panic!("cannot add partitions to {topic}: {e}")) {
            result.unwrap_or_else(|(_, code)| panic!("cannot add partitions to {topic}: {code}"));
        }
        wait_for(&format!("leaders of {topic}"), TIMEOUT, || (self.led_partitions(topic) == partitions).then_some(()));
    }

    /// Deletes a topic and waits until it is gone.
    pub fn delete_topic(&self, topic: &str) {
        let results = block_on(self.admin().delete_topics(&[topic], &admin_options()));
        for result in results.unwrap_or_else(|e| panic!("cannot delete the topic {topic}: {e}")) {
            result.unwrap_or_else(|(_, code)| panic!("cannot delete the topic {topic}: {code}"));
        }
        wait_for(&format!("the end of {topic}"), TIMEOUT, || (self.led_partitions(topic) == 0).then_some(()));
    }

    /// The number of partitions, with or without a leader; zero when there is no such topic.
    pub fn partitions(&self, topic: &str) -> i32 {
        self.count_partitions(topic, |_| true)
    }

    fn led_partitions(&self, topic: &str) -> i32 {
        self.count_partitions(topic, |partition| partition.leader() >= 0)
    }

    fn count_partitions(&self, topic: &str, counts: impl Fn(&MetadataPartition) -> bool) -> i32 {
        let consumer: BaseConsumer = self.client("metadata").create().expect("a consumer");
        let metadata = consumer
            .fetch_metadata(Some(topic), TIMEOUT)
            .unwrap_or_else(|e| panic!("no metadata of {topic} from {}: {e}", self.bootstrap));
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return 0 };
        match found.error().map(RDKafkaErrorCode::from) {
            None => found.partitions().iter().filter(|p| counts(p)).count() as i32,
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::LeaderNotAvailable) => 0,
            Some(code) => panic!("no metadata of {topic}: {code}"),
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client("admin").create().expect("an admin client")
    }

    fn client(&self, purpose: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", format!("millstream-tests-{purpose}"))
            // The harness says itself what went wrong; a broker that a test stops is no news.
            .set("log_level", "0")
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "200");
        config
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}
