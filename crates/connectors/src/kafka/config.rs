//! Client properties: what the user passes through, with names of the Java client translated or refused by name.
use std::collections::BTreeMap;

use millstream_plan::options::Resolved;
use rdkafka::ClientConfig;

use crate::ConnectorError;

/// Options whose rest is a client property.
pub(super) const PASS_THROUGH: &[&str] = &["properties.", "kafka."];

/// Java names that mean the same under another name.
const RENAMED: &[(&str, &str)] = &[
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
    ("max.request.size", "message.max.bytes"),
    ("ssl.truststore.certificates", "ssl.ca.pem"),
    ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
    ("ssl.keystore.key", "ssl.key.pem"),
    ("send.buffer.bytes", "socket.send.buffer.bytes"),
    ("receive.buffer.bytes", "socket.receive.buffer.bytes"),
];

/// Names that cannot be honoured, each with what to do.
const REFUSED: &[(&str, &str)] = &[
    ("key.deserializer", "the types of the columns say how keys are read"),
    ("value.deserializer", "'format' says how values are read"),
    ("key.serializer", "'key.format' says how keys are written"),
    ("value.serializer", "'format' says how values are written"),
    ("interceptor.classes", "Java classes cannot be loaded; take it away"),
    ("metric.reporters", "Java classes cannot be loaded; see /metrics"),
    ("partitioner.class", "use 'sink.partitioner'"),
    ("partitioner", "use 'sink.partitioner'"),
    ("partition.assignment.strategy", "partitions are assigned by the plan; take it away"),
    ("group.protocol", "partitions are assigned by the plan; take it away"),
    ("group.instance.id", "partitions are assigned by the plan; take it away"),
    ("max.poll.records", "use 'maxOffsetsPerTrigger'"),
    ("max.poll.interval.ms", "partitions are assigned by the plan; take it away"),
    ("security.providers", "Java classes cannot be loaded; take it away"),
    ("ssl.engine.factory.class", "Java classes cannot be loaded; take it away"),
    ("sasl.login.class", "Java classes cannot be loaded; take it away"),
    ("sasl.login.callback.handler.class", "Java classes cannot be loaded; take it away"),
    ("sasl.client.callback.handler.class", "Java classes cannot be loaded; take it away"),
    ("default.api.timeout.ms", "use 'properties.socket.timeout.ms'"),
    ("max.block.ms", "use 'properties.socket.timeout.ms'"),
    ("transactional.id", "use 'sink.transactional-id-prefix'"),
    ("enable.idempotence", "'sink.delivery-guarantee' decides"),
    ("acks", "'sink.delivery-guarantee' decides"),
    ("request.required.acks", "'sink.delivery-guarantee' decides"),
    ("enable.partition.eof", "the reader needs it as it is; take it away"),
    ("enable.auto.offset.store", "offsets are published when their epoch is; take it away"),
    ("ssl.truststore.password", "convert the trust store to PEM and give 'properties.ssl.ca.location'"),
];

/// Read by [`security`] and [`timing`] instead of being handed on as they are.
const READ_HERE: &[&str] = &[
    "sasl.jaas.config",
    "ssl.truststore.location",
    "ssl.truststore.type",
    "ssl.keystore.type",
    "enable.auto.commit",
    "auto.offset.reset",
    "request.timeout.ms",
    "buffer.memory",
];

/// The properties that the user passed, in librdkafka's names. `table` is named in errors.
pub(super) fn client_config(table: &str, options: &Resolved) -> Result<ClientConfig, ConnectorError> {
    let mut config = ClientConfig::new();
    let given = &options.passed;
    for (key, value) in given {
        if let Some((_, advice)) = REFUSED.iter().find(|(name, _)| name == key) {
            return Err(refused(table, key, advice));
        }
        if READ_HERE.contains(&key.as_str()) {
            continue;
        }
        let name = RENAMED.iter().find(|(java, _)| java == key).map_or(key.as_str(), |(_, ours)| ours);
        config.set(name, value);
    }
    security(table, given, &mut config)?;
    timing(table, given, &mut config)?;
    if config.get("bootstrap.servers").is_none_or(str::is_empty) {
        return Err(ConnectorError::user(
            format!("table '{table}': no kafka broker is named"),
            "add 'properties.bootstrap.servers' = 'host:9092'",
        ));
    }
    for (key, value) in [("log_level", "5"), ("socket.keepalive.enable", "true"), ("reconnect.backoff.max.ms", "1000")]
    {
        if config.get(key).is_none() {
            config.set(key, value);
        }
    }
    config.set("allow.auto.create.topics", "false");
    Ok(config)
}

fn security(table: &str, given: &BTreeMap<String, String>, config: &mut ClientConfig) -> Result<(), ConnectorError> {
    let given = |key: &str| given.get(key).map(String::as_str);
    if let Some(jaas) = given("sasl.jaas.config") {
        let (user, password) = jaas_credentials(jaas).ok_or_else(|| {
            refused(
                table,
                "sasl.jaas.config",
                "only PlainLoginModule and ScramLoginModule with username and password are understood; use \
                 'properties.sasl.username' and 'properties.sasl.password'",
            )
        })?;
        config.set("sasl.username", user).set("sasl.password", password);
    }
    if let Some(location) = given("ssl.truststore.location") {
        let pem = given("ssl.truststore.type").is_some_and(|t| t.eq_ignore_ascii_case("pem"))
            || has_extension(location, &["pem", "crt", "cer"]);
        if !pem {
            return Err(refused(
                table,
                "ssl.truststore.location",
                "convert the Java key store with `keytool -exportcert -rfc` and give the PEM file as \
                 'properties.ssl.ca.location'",
            ));
        }
        config.set("ssl.ca.location", location);
    }
    let keystore_type = given("ssl.keystore.type").unwrap_or("");
    if let Some(location) = given("ssl.keystore.location")
        && (keystore_type.eq_ignore_ascii_case("jks") || has_extension(location, &["jks"]))
    {
        return Err(refused(
            table,
            "ssl.keystore.location",
            "convert the Java key store with `keytool -importkeystore -deststoretype PKCS12`",
        ));
    }
    Ok(())
}

fn timing(table: &str, given: &BTreeMap<String, String>, config: &mut ClientConfig) -> Result<(), ConnectorError> {
    let given = |key: &str| given.get(key).map(String::as_str);
    if given("enable.auto.commit").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return Err(refused(table, "enable.auto.commit", "offsets are published when their epoch is; take it away"));
    }
    if let Some(ms) = given("request.timeout.ms") {
        config.set("socket.timeout.ms", ms);
    }
    if let Some(bytes) = given("buffer.memory") {
        let bytes: u64 = bytes.parse().map_err(|_| refused(table, "buffer.memory", "it must be a number of bytes"))?;
        config.set("queue.buffering.max.kbytes", (bytes >> 10).max(1).to_string());
    }
    Ok(())
}

fn refused(table: &str, key: &str, advice: &str) -> ConnectorError {
    ConnectorError::user(format!("table '{table}': kafka property '{key}' cannot be used here"), advice)
}

fn has_extension(location: &str, extensions: &[&str]) -> bool {
    location.rsplit_once('.').is_some_and(|(_, e)| extensions.iter().any(|x| e.eq_ignore_ascii_case(x)))
}

/// User and password out of a JAAS line such as `…ScramLoginModule required username="a" password="b";`.
fn jaas_credentials(jaas: &str) -> Option<(&str, &str)> {
    let module = jaas.split_whitespace().next()?;
    if !module.ends_with("PlainLoginModule") && !module.ends_with("ScramLoginModule") {
        return None;
    }
    let field = |name: &str| {
        let rest = jaas.split_once(name)?.1.trim_start().strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        rest[1..].split_once(quote).map(|(value, _)| value)
    };
    Some((field("username")?, field("password")?))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use millstream_plan::options::resolve;

    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<ClientConfig, ConnectorError> {
        let given = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        client_config("orders", &resolve(&[], PASS_THROUGH, &given).unwrap())
    }

    fn problem(pairs: &[(&str, &str)]) -> String {
        match config(pairs).unwrap_err() {
            ConnectorError::User { message, hint } => format!("{message}; {}", hint.unwrap_or_default()),
            other => other.to_string(),
        }
    }

    #[test]
    fn java_names_are_translated() {
        let jaas =
            "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"ann\" password=\"s=c;r\";";
        let c = config(&[
            ("kafka.bootstrap.servers", "a:1"),
            ("properties.sasl.jaas.config", jaas),
            ("properties.fetch.max.wait.ms", "7"),
            ("properties.ssl.truststore.location", "/ca.pem"),
            ("properties.enable.auto.commit", "false"),
        ])
        .unwrap();
        let get = |key| c.get(key).unwrap();
        assert_eq!((get("sasl.username"), get("sasl.password")), ("ann", "s=c;r"));
        assert_eq!((get("fetch.wait.max.ms"), get("ssl.ca.location")), ("7", "/ca.pem"));
        assert!(c.get("sasl.jaas.config").is_none() && c.get("enable.auto.commit").is_none());
        c.create_native_config().unwrap();
    }

    #[test]
    fn what_cannot_be_honoured_is_named_with_a_way_out() {
        assert!(problem(&[]).contains("properties.bootstrap.servers"));
        let p = problem(&[("kafka.bootstrap.servers", "a:1"), ("kafka.key.deserializer", "x")]);
        assert!(p.contains("'orders'") && p.contains("'key.deserializer'"), "{p}");
        let p = problem(&[("kafka.bootstrap.servers", "a:1"), ("properties.ssl.truststore.location", "/x/t.jks")]);
        assert!(p.contains("ssl.ca.location"), "{p}");
        let secret = "com.x.OtherLoginModule required username=\"u\" password=\"hush\";";
        let p = problem(&[("kafka.bootstrap.servers", "a:1"), ("properties.sasl.jaas.config", secret)]);
        assert!(p.contains("sasl.username") && !p.contains("hush"), "{p}");
    }
}
