//! The harness itself, against the real broker, the real S3 server and real processes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_tests::files::{Files, json_rows};
use millstream_tests::kafka::{Broker, Isolation, Record};
use millstream_tests::oracle::{Oracle, assert_same_rows, difference};
use millstream_tests::process::Program;
use millstream_tests::s3::S3;
use millstream_tests::wait::{poll, wait_for};
use millstream_tests::{orders, temp_dir, unique};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_record_keeps_everything_it_carries() {
    let broker = Broker::shared();
    let topic = unique("records");
    broker.create_topic(&topic, 3, &[]);
    let sent = [
        Record::new("first")
            .partition(2)
            .key("k")
            .header("trace", "1")
            .header("trace", "2")
            .timestamp(1_700_000_000_123),
        Record::tombstone("gone").partition(0),
        Record::new([0xff, 0x00]).partition(2),
    ];
    broker.produce(&topic, &sent);

    let read = broker.read(&topic, Isolation::Committed);
    assert_eq!(read.iter().map(|r| (r.partition, r.offset)).collect::<Vec<_>>(), [(0, 0), (2, 0), (2, 1)]);
    assert_eq!((read[0].key.as_deref(), &read[0].value), (Some("gone".as_bytes()), &None));
    assert_eq!((read[1].text(), read[1].timestamp), ("first", Some(1_700_000_000_123)));
    assert_eq!(read[1].headers.len(), 2);
    assert_eq!(read[1].header("trace"), Some("2".as_bytes()));
    assert_eq!(read[2].value.as_deref(), Some([0xff, 0x00].as_slice()));
    assert_eq!(broker.end_offsets(&topic, Isolation::Committed), [1, 0, 2]);

    broker.delete_topic(&topic);
    assert_eq!(broker.partitions(&topic), 0);
}

#[test]
fn a_topic_may_take_messages_of_20_mib() {
    let broker = Broker::shared();
    let topic = unique("large");
    broker.create_topic(&topic, 1, &[("max.message.bytes", "25000000")]);
    broker.produce(&topic, &[Record::new(vec![b'x'; 20 << 20])]);
    assert_eq!(broker.read(&topic, Isolation::Committed)[0].value.as_ref().unwrap().len(), 20 << 20);
}

#[test]
fn readers_of_committed_records_see_no_aborted_and_no_open_transaction() {
    let broker = Broker::shared();
    let topic = unique("transactions");
    broker.create_topic(&topic, 1, &[]);
    let values =
        |isolation| -> Vec<String> { broker.read(&topic, isolation).iter().map(|r| r.text().to_owned()).collect() };
    broker.transaction(&unique("id"), &topic, &[Record::new("aborted")]).abort();
    broker.transaction(&unique("id"), &topic, &[Record::new("committed")]).commit();
    let id = unique("id");
    let open = broker.transaction(&id, &topic, &[Record::new("open")]);
    broker.transaction(&unique("id"), &topic, &[Record::new("behind")]).commit();
    assert_eq!(values(Isolation::Committed), ["committed"]);
    assert_eq!(values(Isolation::Uncommitted), ["aborted", "committed", "open", "behind"]);

    // A crash leaves it open; the next producer of the same id aborts it.
    drop(open);
    broker.transaction(&id, &topic, &[Record::new("again")]).commit();
    broker.wait_settled(&topic, SOON);
    assert_eq!(values(Isolation::Committed), ["committed", "behind", "again"]);
}

#[test]
fn partitions_are_added_and_groups_have_offsets() {
    let broker = Broker::shared();
    let (topic, group) = (unique("growing"), unique("group"));
    broker.create_topic(&topic, 1, &[]);
    broker.add_partitions(&topic, 2);
    assert_eq!(broker.group_offsets(&group, &topic), [None, None]);
    broker.commit_group_offsets(&group, &topic, &[0, 7]);
    assert_eq!(broker.group_offsets(&group, &topic), [Some(0), Some(7)]);
}

#[test]
fn a_killed_broker_comes_back_with_its_records() {
    let broker = Broker::start();
    broker.create_topic("kept", 1, &[]);
    broker.produce("kept", &[Record::new("before")]);
    broker.kill();
    broker.start_again();
    broker.freeze();
    let frozen = std::thread::scope(|scope| {
        let producing = scope.spawn(|| broker.produce("kept", &[Record::new("after")]));
        let ended = poll(Duration::from_millis(300), || producing.is_finished().then_some(()));
        broker.thaw();
        ended.is_none()
    });
    assert!(frozen, "a frozen broker takes no records");
    broker.stop();
    broker.start_again();
    let read = broker.read("kept", Isolation::Committed);
    assert_eq!(read.iter().map(|r| r.text()).collect::<Vec<_>>(), ["before", "after"]);
}

#[test]
fn a_bucket_holds_what_was_put_and_survives_a_kill() {
    let s3 = S3::start();
    let bucket = s3.create_bucket("orders");
    let rows = orders::batch(&orders::orders(1, 0..100));
    let mut file = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, orders::schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    bucket.files().put("out/part-0.parquet", file.clone());
    bucket.files().put("out/part-1.parquet", file);
    bucket.files().put("elsewhere/part-2.parquet", "no parquet");
    s3.kill();
    s3.start_again();
    assert_eq!(bucket.files().keys("out", ".parquet"), ["out/part-0.parquet", "out/part-1.parquet"]);
    assert_same_rows("twice the rows", &[rows.clone(), rows.clone()], &bucket.files().parquet("out"));
    bucket.files().delete("out/part-1.parquet");
    assert_same_rows("the rows", &[rows], &bucket.files().parquet("out"));
    assert_eq!(bucket.url("out"), "s3://orders/out");
}

#[test]
fn the_shared_s3_server_takes_buckets_and_programs_find_it() {
    let s3 = S3::shared();
    let bucket = s3.create_bucket(&unique("shared"));
    bucket.files().put("a.json", "{\"n\":1}\n{\"n\":2}");
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    assert_same_rows("json", &numbers(&[2, 1]), &bucket.files().json("", &schema));
    assert!(s3.env().contains(&("AWS_ENDPOINT".to_owned(), s3.endpoint().to_owned())));
}

#[test]
fn files_of_a_local_folder_are_read_likewise() {
    let folder = temp_dir();
    let files = Files::local(folder.path());
    files.put("day=1/a.json", "{\"n\":3}");
    files.put("day=2/b.json", "{\"n\":4}\n");
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    assert_same_rows("json", &numbers(&[3, 4]), &files.json("", &schema));
    assert_same_rows("json", &numbers(&[4]), &files.json("day=2", &schema));
}

#[test]
fn orders_are_the_same_as_json_and_as_arrow() {
    let orders = orders::orders(7, 0..3_000);
    let texts: Vec<String> = orders.iter().map(orders::Order::json).collect();
    let read = json_rows(&orders::schema(), texts.iter().map(String::as_bytes));
    assert_same_rows("orders", &[orders::batch(&orders)], &read);
    assert_eq!(orders[42], orders::Order::nth(7, 42));
    assert_ne!(orders[42], orders::Order::nth(8, 42));
    let mut newest = i64::MIN;
    assert!(orders.iter().all(|order| {
        newest = newest.max(order.ts);
        order.ts >= newest - orders::DISORDER
    }));
}

#[test]
fn the_oracle_answers_in_sql() {
    let orders = orders::orders(7, 0..500);
    let cents: i64 = orders.iter().map(|order| order.cents).sum();
    let oracle = Oracle::default().table("orders", orders::schema(), vec![orders::batch(&orders)]);
    let expected = RecordBatch::try_from_iter([
        ("rows", Arc::new(Int64Array::from(vec![500])) as _),
        ("cents", Arc::new(Int64Array::from(vec![cents])) as _),
    ]);
    assert_same_rows(
        "sums",
        &[expected.unwrap()],
        &oracle.query("SELECT sum(cents) AS cents, count(*) AS rows FROM orders"),
    );
}

#[test]
fn differences_name_the_rows() {
    assert_eq!(difference(&numbers(&[1, 2, 2]), &numbers(&[2, 1, 2])), None);
    assert_eq!(difference(&[], &[]), None);
    let text = difference(&numbers(&[1, 2, 2]), &numbers(&[2, 3])).unwrap();
    assert_eq!(text, "3 rows expected, 2 there\n  n\nmissing: 2\n  1\n  2\ntoo many: 1\n  3");
    let text = difference(&[], &numbers(&[5, 5])).unwrap();
    assert_eq!(text, "0 rows expected, 2 there\n  n\nmissing: 0\ntoo many: 2\n  5   (2 times)");
    let other = RecordBatch::try_from_iter([("m", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    assert_eq!(difference(&numbers(&[1]), &[other]).unwrap(), "the columns are [\"m\"] instead of [\"n\"]");
}

#[test]
fn a_process_is_watched_frozen_and_never_left_behind() {
    let script = "echo one; echo two >&2; sleep 600 & echo child $!; wait";
    let mut process = Program::at("bash").args(["-c", script]).start();
    assert_eq!(process.wait_for_line("wo", SOON), "two");
    let line = process.wait_for_line("child", SOON);
    let child: u32 = line.strip_prefix("child ").unwrap().parse().unwrap();
    assert_eq!(process.children(), [child]);
    assert!(process.resident_bytes() > 0);

    process.freeze();
    wait_for("the frozen state", SOON, || (state(process.pid()) == Some('T')).then_some(()));
    process.thaw();
    wait_for("the running state", SOON, || (state(process.pid()) != Some('T')).then_some(()));
    process.kill();
    assert!(!process.is_running());
    assert!(gone(child).is_none(), "a kill is for one process alone");
    drop(process);
    wait_for("the end of the child", SOON, || gone(child));
}

#[test]
fn a_program_that_ends_leaves_its_code_and_its_output() {
    let program = Program::at("bash").args(["-c", "echo $NAME; pwd >&2; exit 78"]).env("NAME", "value").dir("/");
    let finished = program.run(SOON);
    assert_eq!((finished.code(), finished.stdout.as_str(), finished.stderr.as_str()), (78, "value\n", "/\n"));
    let mut sleeper = Program::at("sleep").arg("600").start();
    sleeper.terminate();
    assert!(!sleeper.wait(SOON).success());
}

#[test]
fn waiting_ends_with_the_condition_or_the_time() {
    let started = Instant::now();
    let mut asked = 0;
    let answer = wait_for("three questions", SOON, || {
        asked += 1;
        (asked == 3).then_some("yes")
    });
    assert_eq!((answer, asked), ("yes", 3));
    assert!(started.elapsed() < SOON);
    assert_eq!(poll(Duration::from_millis(1), || None::<()>), None);
    let panic = std::panic::catch_unwind(|| wait_for("nothing", Duration::ZERO, || None::<()>)).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().expect("a text"), "waited 0ns in vain for nothing");
}

fn numbers(values: &[i64]) -> Vec<RecordBatch> {
    let column = Arc::new(Int64Array::from(values.to_vec()));
    vec![RecordBatch::try_from_iter([("n", column as _)]).unwrap()]
}

/// The state letter of a process, nothing when there is none of that number.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

fn gone(pid: u32) -> Option<()> {
    matches!(state(pid), None | Some('Z' | 'X')).then_some(())
}
